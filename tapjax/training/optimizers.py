"""Optimizers and learning rates, as the published recipes state them."""

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
    kind: of the direction: Adam's moments, or gradients with momentum.
    peak_lr: largest learning rate.
    end_lr: learning rate after the last step.
    schedule: warm-up from zero and then half a cosine, or a constant stretch
      and then half a cosine.
    warmup_steps: of 'cosine'.
    constant_share: of all steps, for 'constant_cosine'.
    num_steps: of the whole training.
    weight_decay: times the learning rate; see `select_decayed`.
    max_norm: gradients of a larger global norm are scaled down to it; None
      leaves them as they are.
    b1: decay of the mean of gradients, for both kinds.
    b2: decay of the mean of squared gradients.
    eps: added to the root of the latter.
    max_bad_steps: consecutive steps with a non-finite gradient that change
      nothing; one more is let through.
    frozen: patterns of modules whose weights stay as they are, such as
      '*resnet*'; `*` stands for anything.
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


# Modules whose weights are not decayed, by a part of their name.
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
  """Returns the optimizer; it skips steps whose gradients are not finite."""
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
    # The decay is not to change what gradients do not.
    steps.append(freeze)
  return optax.apply_if_finite(optax.chain(*steps), config.max_bad_steps)


def select_decayed(weights: Any) -> Any:
  """Returns which of `{module: {name: array}}` are decayed.

  Biases (arrays named `b`) are not, nor what layer and batch norms learn; what
  instance norms learn is, as in the published recipes.
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
  """Returns which of `{module: {name: array}}` are in modules of patterns.

  Raises ValueError for a pattern that no module has.
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
  """Returns the same weights, through which no gradient passes where frozen.

  What leads to these alone is then not computed.
  """
  if not patterns:
    return weights
  return jax.tree.map(
      lambda array, frozen: jax.lax.stop_gradient(array) if frozen else array,
      weights,
      select_modules(weights, patterns),
  )


def count_bad_steps(state: optax.ApplyIfFiniteState) -> jax.Array:
  """Returns how many of the latest steps in a row were not finite."""
  return state.notfinite_count
