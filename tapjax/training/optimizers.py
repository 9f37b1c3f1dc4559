"""Optimizers and learning-rate schedules of the published recipes."""

from collections.abc import Sequence
import dataclasses
import fnmatch
from typing import Any, Literal

import jax
import optax


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Settings of an optimizer.

  Attributes:
    kind: Adam, or stochastic gradient descent with momentum.
    peak_lr: largest learning rate.
    end_lr: learning rate after the last step.
    schedule: linear warm-up from zero, or a constant phase; then a half-cosine
      decay.
    warmup_steps: number of warm-up steps of 'cosine'.
    constant_share: fraction of the constant phase of 'constant_cosine'.
    num_steps: number of steps of the whole training.
    weight_decay: decoupled weight decay; see `select_decayed`.
    max_norm: maximum global norm of the gradients, by clipping; None for no
      clipping.
    b1: decay of the first moment, or momentum.
    b2: decay of the second moment.
    eps: constant added to the root of the second moment.
    max_bad_steps: maximum number of consecutive steps with a non-finite
      gradient that are skipped; the next one is applied.
    frozen: patterns of modules whose weights are not trained, such as
      '*resnet*'; `*` matches any text.
  """

  kind: Literal['adam', 'sgd'] = 'adam'
  peak_lr: float = 1e-3
  end_lr: float = 0.0
  schedule: Literal['cosine', 'constant_cosine'] = 'cosine'
  warmup_steps: int = 1000
  constant_share: float = 0.0
  num_steps: int = 100_000
  weight_decay: float = 1e-1
  max_norm: float | None = None
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  max_bad_steps: int = 5
  frozen: tuple[str, ...] = ()


# Modules without weight decay, by parts of their names.
_UNDECAYED_MODULES = ('layer_norm', 'batch_norm', '_bn', 'linear_classifier')


def make_schedule(config: OptimizerConfig) -> optax.Schedule:
  """Returns the learning rate as a function of the number of updates."""
  if config.schedule == 'cosine':
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.peak_lr,
        warmup_steps=config.warmup_steps,
        decay_steps=config.num_steps,
        end_value=config.end_lr,
    )
  constant_steps = int(config.constant_share * config.num_steps)
  return optax.join_schedules(
      [
          optax.constant_schedule(config.peak_lr),
          optax.cosine_decay_schedule(
              config.peak_lr,
              config.num_steps - constant_steps,
              alpha=config.end_lr / config.peak_lr,
          ),
      ],
      [constant_steps],
  )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
  """Returns the optimizer; skips steps with non-finite gradients."""
  freeze = optax.masked(
      optax.set_to_zero(),
      lambda weights: select_modules(weights, config.frozen),
  )
  steps = [freeze] if config.frozen else []
  if config.max_norm is not None:
    steps.append(optax.clip_by_global_norm(config.max_norm))
  if config.kind == 'adam':
    steps.append(
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    )
  else:
    steps.append(optax.trace(decay=config.b1))
  steps += [
      optax.add_decayed_weights(config.weight_decay, mask=select_decayed),
      optax.scale_by_learning_rate(make_schedule(config)),
  ]
  if config.frozen:
    # Weight decay must not change frozen weights.
    steps.append(freeze)
  return optax.apply_if_finite(optax.chain(*steps), config.max_bad_steps)


def select_decayed(weights: Any) -> Any:
  """Returns the mask of decayed arrays of `{module: {name: array}}`.

  Biases (arrays named `b`) and parameters of layer and batch norms are not
  decayed; those of instance norms are, as in the published recipes.
  """
  return {
      module: {
          name: (
              name != 'b'
              and not any(part in module for part in _UNDECAYED_MODULES)
          )
          for name in arrays
      }
      for module, arrays in weights.items()
  }


def select_modules(weights: Any, patterns: Sequence[str]) -> Any:
  """Returns the mask of arrays in modules that match any pattern.

  Raises:
    ValueError: a pattern matches no module.
  """
  for pattern in patterns:
    if not any(fnmatch.fnmatchcase(module, pattern) for module in weights):
      raise ValueError(
          f'frozen must be patterns of modules; none matches {pattern!r} among '
          f'{", ".join(sorted(weights))}'
      )
  return {
      module: dict.fromkeys(
          arrays,
          any(fnmatch.fnmatchcase(module, pattern) for pattern in patterns),
      )
      for module, arrays in weights.items()
  }


def stop_frozen(weights: Any, patterns: Sequence[str]) -> Any:
  """Stops gradients through frozen weights, which saves their computation."""
  if not patterns:
    return weights
  return jax.tree.map(
      lambda array, frozen: jax.lax.stop_gradient(array) if frozen else array,
      weights,
      select_modules(weights, patterns),
  )


def count_bad_steps(state: optax.ApplyIfFiniteState) -> jax.Array:
  """Returns the number of latest consecutive non-finite steps."""
  return state.notfinite_count
