"""Haiku modules as pure functions over explicit parameters.

Haiku ends here and in the modules of `models/` and `nn/`: above, a tracker is
`TrackerFunctions`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
from jaxtyping import Array

from tapjax.models.contract import Params
from tapjax.types import PyTree


class Network(NamedTuple):
  """A Haiku module as pure functions.

  Attributes:
    init: makes random parameters from a key, by running the module.
    apply: calls a method, as in `apply('encode_frame', params, frame)`.
    apply_with_statistics: calls a method with a key for dropout and the like,
      `apply_with_statistics(name, params, key, *arguments)`, and also returns
      the updated batch-norm statistics.
  """

  init: Callable[[Array], Params]
  apply: Callable[..., Any]
  apply_with_statistics: Callable[..., tuple[Any, PyTree]]


def make_network(
    make_module: Callable[[], hk.Module],
    methods: tuple[str, ...],
    make_inputs: Callable[[], tuple[Any, ...]],
) -> Network:
  """Turns a Haiku module into pure functions of its methods.

  Args:
    make_module: builds the module, whose `__call__` runs all of it.
    methods: methods to expose.
    make_inputs: small inputs of `__call__`, with which `init` runs it.
  """

  def build() -> tuple[Callable[[], Any], dict[str, Callable[..., Any]]]:
    module: Any = make_module()
    applied = {name: getattr(module, name) for name in methods}
    return lambda: module(*make_inputs()), applied

  transformed = hk.multi_transform_with_state(build)

  def init(key: Array) -> Params:
    return Params(*transformed.init(key))

  def apply_with_statistics(
      method: str, params: Params, key: Array | None, *arguments: Any
  ) -> tuple[Any, PyTree]:
    return transformed.apply[method](
        params.params, params.state, key, *arguments
    )

  def apply(method: str, params: Params, *arguments: Any) -> Any:
    output, _ = apply_with_statistics(method, params, None, *arguments)
    return output

  return Network(jax.jit(init), apply, apply_with_statistics)
