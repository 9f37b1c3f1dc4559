"""The one seam over devices: a pure function mapped over all of them.

What is replicated is the same everywhere, such as parameters; what is sharded
is cut along its first axis, such as a batch. A mapped function sees one shard
and speaks to the others through `average`, as under `jax.pmap`.
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

# What a mapped function calls the devices.
AXIS = 'devices'


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns the devices to work on, by default all of all processes."""
  chosen = jax.devices() if devices is None else devices
  return Mesh(np.asarray(chosen), (AXIS,))


def make_batch_mesh(batch_size: int) -> Mesh:
  """Returns the most devices that share a batch evenly.

  Of several processes all devices take part; `shard` refuses a batch that they
  cannot share.
  """
  devices = jax.devices()
  if jax.process_count() > 1:
    return make_mesh(devices)
  counts = range(1, min(batch_size, len(devices)) + 1)
  most = max(count for count in counts if batch_size % count == 0)
  return make_mesh(devices[:most])


def take_share(tree: PyTree) -> PyTree:
  """Returns this process's rows of a batch that every process has whole."""
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
  """Puts the same arrays on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard(mesh: Mesh, tree: PyTree) -> PyTree:
  """Cuts arrays along their first axis, a part for each device.

  In a run of several processes each passes its own share of the whole.
  """
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))
  share = mesh.local_mesh.size
  for leaf in jax.tree.leaves(tree):
    if leaf.shape[0] % share:
      raise ValueError(
          f'a batch must be a multiple of the {share} local devices; got '
          f'{leaf.shape[0]} - change the batch size'
      )
  return jax.tree.map(
      lambda leaf: jax.make_array_from_process_local_data(
          sharding, np.asarray(leaf)
      ),
      tree,
  )


def fetch(tree: PyTree) -> PyTree:
  """Returns arrays of a device as NumPy's."""
  # Waiting raises what went wrong; NumPy aborts on arrays that failed.
  return jax.tree.map(np.asarray, jax.block_until_ready(tree))


def describe_replicated(mesh: Mesh, tree: PyTree) -> PyTree:
  """Returns shapes of what `replicate` puts on every device."""
  sharding = NamedSharding(mesh, PartitionSpec())
  return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=sharding
      ),
      tree,
  )


def describe_shards(mesh: Mesh, tree: PyTree) -> PyTree:
  """Returns shapes of what `shard` cuts, from those of a single shard."""
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

  Only the batch is sharded. The results must be equal on all devices: whatever
  depends on the shard goes through `average`.
  """

  def run(state: PyTree, batch: PyTree, *rest: PyTree) -> PyTree:
    whole, cut = PartitionSpec(), PartitionSpec(AXIS)
    # Without the check, gradients are those of the shard alone, as in pmap.
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
  """Compiles `function(state)` so that each device makes its own shard.

  The state is the same on all devices; `fold_device` tells devices apart.
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


def map_shards(
    function: Callable[..., PyTree], mesh: Mesh, *, donate: tuple[int, ...] = ()
) -> jax.stages.Wrapped:
  """Compiles `function(state, *batches)`, whose results are cut like a batch.

  The state is the same on all devices. Every device works by itself, and may
  take its own time. `donate` are numbers of arguments that are given up.
  """

  def run(state: PyTree, *batches: PyTree) -> PyTree:
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

  A row of the batch has the same key however many devices share the batch. For
  use in a mapped function.
  """
  first = count * jax.lax.axis_index(AXIS)
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(
      first + jnp.arange(count)
  )


def get_share(mesh: Mesh) -> tuple[jax.Array, int]:
  """Returns the number of this device among all, and how many there are.

  For use in a mapped function.
  """
  return jax.lax.axis_index(AXIS), mesh.size


def fold_device(key: jax.Array) -> jax.Array:
  """Returns another key on every device; for use in a mapped function."""
  return jax.random.fold_in(key, jax.lax.axis_index(AXIS))
