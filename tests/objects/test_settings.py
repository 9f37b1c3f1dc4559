"""Settings of object tracking."""

import pytest

from tapjax import objects


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'detect_every': 0}, 'detect_every must be at least 1'),
        ({'match': 1.5}, 'match must be between 0 and 1'),
        ({'smoothing': float('nan')}, 'smoothing must be'),
        ({'reinitialize_growth': 1.0}, 'more than 1'),
    ],
)
def test_impossible_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    objects.ObjectSettings(**settings)
