"""Settings of files that were written before `tapir_tiny` had its own."""

import dataclasses
import json

import pytest

from tapjax.models.tapir.config import TAPIR
from tapjax.models.tapir.weights import upgrade_settings

STORED = json.loads(json.dumps(dataclasses.asdict(TAPIR)))
FORMER = {
    'support_radius': 0,
    'stem_support_radius': 0,
    'logits_stride': 2,
    'position_weight': 0.0,
    'template_weight': 0.0,
    'template_rate': 0.5,
    'lone_template_weight': 0.0,
    'motion_weight': 0.0,
    'motion_reach': 4.0,
    'frames_at_once': 1,
}


def test_former_settings_that_are_neutral_are_left_out():
  assert upgrade_settings({**STORED, **FORMER}) == STORED
  assert upgrade_settings(STORED) == STORED
  # Nothing follows from these without the others.
  idle = {'template_rate': 0.25, 'motion_reach': 9.0, 'frames_at_once': 4}
  assert upgrade_settings({**STORED, **FORMER, **idle}) == STORED


@pytest.mark.parametrize(
    'name', ['support_radius', 'logits_stride', 'template_weight']
)
def test_former_settings_of_another_network_are_refused(name):
  with pytest.raises(ValueError, match=f'{name} must be .*as tapir_tiny'):
    upgrade_settings({**STORED, **FORMER, name: 3})
