"""Text tables: widths, alignment, and rows that fail."""

import pytest

from tapjax import tables

COLUMNS = ('preset', 'size', 'points', 'px')
ROWS = [
    ('locotrack_efficientnet_b0_934', '256x256', 12, '7.10'),
    ('tapir', '8x8', 3500, None),
]


def test_columns_are_as_wide_as_their_cells():
  assert tables.format_table(COLUMNS, ROWS).splitlines() == [
      'preset                         size     points    px',
      'locotrack_efficientnet_b0_934  256x256      12  7.10',
      'tapir                          8x8        3500     -',
  ]


def test_markdown():
  lines = tables.format_table(COLUMNS, ROWS, 'markdown').splitlines()
  cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
  assert cells[0] == list(COLUMNS)
  assert [cell[-1] for cell in cells[1]] == ['-', '-', ':', ':']
  assert cells[2:] == [[str(x or '-') for x in row] for row in ROWS]
  assert len(set(map(len, lines))) == 1


@pytest.mark.parametrize(
    ('cells', 'right'),
    [
        (['62.1', '-'], True),
        (['1,210', '7'], True),
        (['31.1 M', '2 M'], True),
        (['5%', '23%'], True),
        (['1e-07', '-3.5'], True),
        (['256x256', '8x8'], False),
        (['31.3, 32.7, 33.0', '-'], False),
        (['tapir', '3'], False),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_numbers_are_to_the_right(cells, right):
  _, *lines = tables.format_table(
      ('a name', 'end'), [(cell, '|') for cell in cells]
  ).splitlines()
  width = max(map(len, ['a name', *cells]))
  for cell, line in zip(cells, lines, strict=True):
    padded = cell.rjust(width) if right else cell.ljust(width)
    assert line == f'{padded}  |'


def test_text_is_kept_as_it_is():
  assert tables.format_table(('a',), [('0012',), ('7.10',), ('1e+3',)]).split(
      '\n'
  ) == ['   a', '0012', '7.10', '1e+3']


def test_no_rows_leave_the_names():
  assert tables.format_table(('a', 'b'), []).split() == ['a', 'b']


def test_no_names_leave_the_rows():
  assert tables.format_table(None, [('a', 1)]) == 'a  1'


def test_a_row_of_another_length_is_an_error():
  with pytest.raises(ValueError, match='must have 4 cells'):
    tables.format_table(COLUMNS, [('tapir', 3)])


def test_rows_before_an_error_are_written(capsys):
  def make_rows():
    yield 'tapir', 1
    raise OSError('the disk is full')

  with pytest.raises(OSError, match='the disk is full'):
    tables.write_table(('preset', 'points'), make_rows())
  assert capsys.readouterr().out == 'preset  points\ntapir        1\n'


def test_a_bar_shows_how_many_rows_are_made(capsys):
  rows = (('tapir', n) for n in range(3))
  tables.write_table(('preset', 'points'), rows, num_rows=3)
  output = capsys.readouterr()
  assert len(output.out.splitlines()) == 4
  assert '3/3' in output.err
