"""Presets, as listed for users."""

import dataclasses

import jax

import tapjax
from tapjax.models import registry


def test_list_models_tells_what_users_ask():
  models = {model.name: model for model in tapjax.list_models()}
  assert models['tapir'].streams is False
  assert models['causal_bootstapir'].streams is True
  assert models['bootstapir'].resolution == (256, 256)
  assert models['tapnet'].licence == 'Apache-2.0'
  assert models['pips_plus_plus'].licence == 'MIT'
  assert models['pips_plus_plus'].resolution == (512, 896)
  assert models['tapir'].licence == 'Apache-2.0'
  assert models['tapir'].queries_independent is True
  assert models['taptrv2'].licence == 'non-commercial research only'
  assert models['taptrv2'].queries_independent is False
  assert models['point_transformer_resnet18'].licence == 'none published'
  assert models['point_transformer_resnet18'].queries_independent is False
  assert all(
      dataclasses.is_dataclass(p.config) for p in registry.PRESETS.values()
  )


def test_the_embedded_tracker_is_as_large_as_its_preset_says():
  params = tapjax.load().params
  size = sum(leaf.size for leaf in jax.tree.leaves(params.params))
  assert size == registry.get_preset(registry.DEFAULT).num_parameters
