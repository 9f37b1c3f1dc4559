"""Deterministic stand-in weights for the published checkpoints.

Parity must not depend on a download, so it is proven on checkpoints that have
the published layout (same names, same shapes, same file format) and
reproducible values. A manifest lists every array of a checkpoint; `fill` draws
each one from a legacy NumPy RandomState stream (frozen by NumPy for ever) that
is seeded by the array's name.

A manifest is a JSON list.  Each entry has
  name   the key of the array in the published checkpoint; for Haiku .npy
         checkpoints it is "<collection>|<module>|<parameter>", for example
         "params|tapir/~/resnet/~/initial_conv|w"
  shape  list of ints
  dtype  "float32" | "int64" | ...
  mean, std   the values are mean + std * standard_normal
  abs    optional; if true the absolute value is taken (running variances)
  center optional; if true the mean of every row (all axes but the first) is
         taken off, in float64, before the cast
  rule   optional; "sincos" ignores mean, std and the seed: for shape [1, n, 2m]
         entry [0, p, i] is sin(p / 10000^(i/m)) and [0, p, m + i] the cosine
         (constant tables that a checkpoint stores)
         "sincos2d" likewise gives `sincos_2d` of `grid`, its (height, width)

Flat checkpoints are written from `fill`: `np.savez(path, **fill(manifest,
seed))` gives a published .npz, `torch.save` of the arrays as tensors a state
dict.
"""

import json
import zlib

import numpy as np


def load_manifest(path):
  with open(path) as f:
    return json.load(f)


def sincos_2d(height, width, channels, temperature=10000.0):
  """Sine-cosine embedding [1, height * width, channels] of pixel indices.

  Four equal groups of channels: sin(column * f), cos(column * f), sin(row * f),
  cos(row * f) with f_k = temperature ** (-k / (channels / 4 - 1)).
  """
  count = channels // 4
  frequency = 1.0 / temperature ** (np.arange(count) / (count - 1))
  row = np.repeat(np.arange(height), width)[:, None] * frequency
  column = np.tile(np.arange(width), height)[:, None] * frequency
  parts = [np.sin(column), np.cos(column), np.sin(row), np.cos(row)]
  return np.concatenate(parts, axis=1)[None]


def fill_array(entry, seed):
  """Returns the array for one manifest entry."""
  if entry.get('rule') == 'sincos2d':
    value = sincos_2d(*entry['grid'], entry['shape'][-1])
    return value.reshape(entry['shape']).astype(entry['dtype'])
  if entry.get('rule') == 'sincos':
    _, length, width = entry['shape']
    rates = 10000.0 ** (-np.arange(width // 2) / (width // 2))
    angles = np.arange(length)[:, None] * rates
    value = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return value[None].astype(entry['dtype'])
  stream = np.random.RandomState(
      zlib.crc32(f'{seed}/{entry["name"]}'.encode()) & 0xFFFFFFFF
  )
  value = stream.standard_normal(tuple(entry['shape']))
  value = entry.get('mean', 0.0) + entry.get('std', 1.0) * value
  if entry.get('abs'):
    value = np.abs(value)
  if entry.get('center'):
    value = value - value.mean(axis=tuple(range(1, value.ndim)), keepdims=True)
  return np.asarray(value).astype(entry['dtype'])


def fill(manifest, seed):
  """Returns {name: array} for a whole manifest."""
  return {entry['name']: fill_array(entry, seed) for entry in manifest}


def haiku_checkpoint(manifest, seed):
  """Returns {'params': {module: {param: array}}, 'state': {...}}.

  `np.save(path, haiku_checkpoint(...))` writes the published .npy format, which
  readers open with np.load(path, allow_pickle=True).item().
  """
  out = {'params': {}, 'state': {}}
  for entry in manifest:
    collection, module, param = entry['name'].split('|')
    out[collection].setdefault(module, {})[param] = fill_array(entry, seed)
  return out
