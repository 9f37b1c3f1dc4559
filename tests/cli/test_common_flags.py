"""Values of flags that several commands share."""

from absl import flags
import numpy as np
import pytest

from tapjax.cli import common_flags


def test_resolutions():
  assert common_flags.parse_resolution(None) is None
  assert common_flags.parse_resolution(['256', '128']) == (256, 128)


@pytest.mark.parametrize('text', ['256', '0,5', 'a,b', '1,2,3'])
def test_what_is_no_resolution(text):
  with pytest.raises(flags.IllegalFlagValueError, match=f'got {text!r}'):
    common_flags.parse_resolution(text.split(','))


def test_numbers():
  numbers = common_flags.parse_numbers('box', ['1', '-2.5'])
  np.testing.assert_array_equal(numbers, [1, -2.5])
  for text in ('a', 'nan', 'inf'):
    with pytest.raises(flags.IllegalFlagValueError, match='--box must be'):
      common_flags.parse_numbers('box', [text])


def test_settings_are_literals_or_text():
  settings = common_flags.parse_settings(
      ['a=3', 'b=[1,2]', 'c=some text', 'd=x=y']
  )
  assert settings == {'a': 3, 'b': (1, 2), 'c': 'some text', 'd': 'x=y'}


def test_frames_lie_in_the_video():
  common_flags.check_frame(4, 5)
  with pytest.raises(ValueError, match='0 to 4; got 5'):
    common_flags.check_frame(5, 5)


def test_one_of_two_flags():
  values = flags.FlagValues()
  common_flags.define_video(values)
  common_flags.define_output(values, 'Where.')
  common_flags.allow_one(values, ['video', 'output'], 'choose one')
  values(['program', '--video=a'])
  with pytest.raises(flags.IllegalFlagValueError, match='choose one'):
    values(['program', '--video=a', '--output=b'])
