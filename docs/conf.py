"""Sphinx settings of the documentation: `sphinx-build -W docs build/docs`."""

import pathlib
import re
import sys
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = 'tapjax'
author = 'The tapjax authors'
(release,) = re.findall(
    r"^__version__ = '(.*)'$",
    (ROOT / 'tapjax' / '__init__.py').read_text(encoding='utf-8'),
    re.M,
)
version = release

extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
]
exclude_patterns = ['README.md']
# The tests execute the blocks; the build only shows them.
nb_execution_mode = 'off'
myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
suppress_warnings = ['myst.strikethrough']

autodoc_typehints = 'signature'
autodoc_member_order = 'bysource'
# Shapes in annotations are long; docstrings say what they mean.
autodoc_typehints_format = 'short'
default_role = 'code'
napoleon_use_ivar = True

html_theme = 'sphinx_book_theme'
html_title = 'tapjax'
html_static_path = ['_static']
html_css_files = ['narrow.css']
html_theme_options = {'use_download_button': False}


def convert_fences(
    app: object,
    what: str,
    name: str,
    obj: object,
    options: object,
    lines: list[str],
) -> None:
  """Turns fenced blocks of docstrings into literal ones."""
  del app, what, name, obj, options
  converted: list[str] = []
  inside = False
  for line in lines:
    if line.startswith('```'):
      inside = not inside
      converted.extend(['', '::', ''] if inside else [''])
    else:
      converted.append('  ' + line if inside else line)
  lines[:] = converted


def setup(app: Any) -> None:
  """Connects the hook."""
  app.connect('autodoc-process-docstring', convert_fences)
