"""Data parallelism: pure functions mapped over all devices.

Replicated arrays, such as parameters, are equal on all devices; sharded arrays,
such as a batch, are split along their first axis. A mapped function sees one
shard and exchanges values with the other shards through collectives such as
`average`, as under `jax.pmap`.
"""

from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from tapjax.types import PyTree

# Name of the device axis in a mapped function.
AXIS = 'devices'


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a mesh of devices, by default all devices of all processes."""
  chosen = jax.devices() if devices is None else devices
  return Mesh(np.asarray(chosen), (AXIS,))


def make_batch_mesh(batch_size: int) -> Mesh:
  """Returns a mesh of as many devices as divide a batch evenly.

  With several processes all devices take part; `shard` refuses a batch that
  they cannot divide.
  """
  devices = jax.devices()
  if jax.process_count() > 1:
    return make_mesh(devices)
  counts = range(1, min(batch_size, len(devices)) + 1)
  most = max(count for count in counts if batch_size % count == 0)
  return make_mesh(devices[:most])


def take_share(tree: PyTree) -> PyTree:
  """Returns the rows of this process, of a batch that all processes hold.

  Raises ValueError if the rows are not a multiple of the processes.
  """
  number, index = jax.process_count(), jax.process_index()

  def take(leaf: np.ndarray) -> np.ndarray:
    if len(leaf) % number:
      raise ValueError(
          f'a batch must be a multiple of the {number} processes; got '
          f'{len(leaf)} - change the batch size'
      )
    rows = len(leaf) // number
    return leaf[rows * index : rows * (index + 1)]

  return jax.tree.map(take, tree)


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
  """Copies arrays to every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard(mesh: Mesh, tree: PyTree) -> PyTree:
  """Splits arrays along their first axis, one part for each device.

  With several processes, each passes its own rows of the batch. Raises
  ValueError if the rows are not a multiple of the local devices.
  """
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))
  num_local = mesh.local_mesh.size
  for leaf in jax.tree.leaves(tree):
    if leaf.shape[0] % num_local:
      raise ValueError(
          f'a batch must be a multiple of the {num_local} local devices; got '
          f'{leaf.shape[0]} - change the batch size'
      )
  return jax.tree.map(
      lambda leaf: jax.make_array_from_process_local_data(
          sharding, np.asarray(leaf)
      ),
      tree,
  )


def fetch(tree: PyTree) -> PyTree:
  """Returns arrays of devices as NumPy arrays."""
  # Waiting raises the error of a failed computation; NumPy would abort.
  return jax.tree.map(np.asarray, jax.block_until_ready(tree))


def describe_replicated(mesh: Mesh, tree: PyTree) -> PyTree:
  """Returns the shapes and shardings of the result of `replicate`."""
  sharding = NamedSharding(mesh, PartitionSpec())
  return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=sharding
      ),
      tree,
  )


def describe_shards(mesh: Mesh, tree: PyTree) -> PyTree:
  """Returns the shapes and shardings of the result of `shard`.

  `tree` has the shapes of a single shard, without the device axis.
  """
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))
  return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
          (mesh.size, *leaf.shape), leaf.dtype, sharding=sharding
      ),
      tree,
  )


def map_devices(
    function: Callable[..., PyTree], mesh: Mesh, *, donate_state: bool
) -> Callable[..., PyTree]:
  """Compiles `function(state, batch, *rest)` to run on every device.

  Only the batch is sharded. The results must be equal on all devices: values
  that depend on the shard go through a collective such as `average`.
  """

  def run(state: PyTree, batch: PyTree, *rest: PyTree) -> PyTree:
    whole, cut = PartitionSpec(), PartitionSpec(AXIS)
    # Without the check, gradients are those of the shard only, as in pmap.
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(whole, cut, *(whole for _ in rest)),
        out_specs=whole,
        check_vma=False,
    )
    return mapped(state, batch, *rest)

  return jax.jit(run, donate_argnums=0 if donate_state else ())


def make_shards(
    function: Callable[..., PyTree], mesh: Mesh
) -> jax.stages.Wrapped:
  """Compiles `function(state)`, where each device computes its own shard.

  The state is equal on all devices; `fold_device` gives each device its key.
  """
  return jax.jit(
      jax.shard_map(
          function,
          mesh=mesh,
          in_specs=PartitionSpec(),
          out_specs=PartitionSpec(AXIS),
          check_vma=False,
      )
  )


def is_compiling() -> bool:
  """Returns whether functions are to be compiled; not with JAX_DISABLE_JIT."""
  return not jax.config.jax_disable_jit  # type: ignore[attr-defined]


def map_shards(
    function: Callable[..., PyTree], mesh: Mesh, *, donate: tuple[int, ...] = ()
) -> jax.stages.Wrapped:
  """Compiles `function(state, *batches)` with results sharded like the batch.

  The state is equal on all devices. Devices run independently, without
  collectives. `donate` lists indices of arguments whose buffers are donated.
  """

  def run(state: PyTree, *batches: PyTree) -> PyTree:
    if mesh.size == 1 and not is_compiling():
      # Mapped without a jit, each operation would be compiled at each call.
      return function(state, *batches)
    whole, cut = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(whole, *(cut for _ in batches)),
        out_specs=cut,
        check_vma=False,
    )
    return mapped(state, *batches)

  return jax.jit(run, donate_argnums=donate)


def average(tree: PyTree) -> PyTree:
  """Returns the mean over devices; for use in a mapped function."""
  return jax.lax.pmean(tree, AXIS)


def total(tree: PyTree) -> PyTree:
  """Returns the sum over devices; for use in a mapped function."""
  return jax.lax.psum(tree, AXIS)


def fold_rows(key: jax.Array, count: int) -> jax.Array:
  """Returns a key for each of the `count` rows of a shard.

  The key of a row of the batch does not depend on the number of devices. For
  use in a mapped function.
  """
  first = count * jax.lax.axis_index(AXIS)
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(
      first + jnp.arange(count)
  )


def get_share(mesh: Mesh) -> tuple[jax.Array, int]:
  """Returns the index of this device in the mesh, and the number of devices.

  For use in a mapped function.
  """
  return jax.lax.axis_index(AXIS), mesh.size


def fold_device(key: jax.Array) -> jax.Array:
  """Returns a different key on every device; for use in a mapped function."""
  return jax.random.fold_in(key, jax.lax.axis_index(AXIS))
