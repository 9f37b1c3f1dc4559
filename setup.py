"""Packaging of tapjax: `pip install .` installs the library and its command."""

import pathlib

import setuptools

_ROOT = pathlib.Path(__file__).parent
_VERSION = '0.1.0'

# imageio-ffmpeg 0.8 brings ffmpeg 9, which rejects an option mediapy passes.
_CORE = [
    'absl-py>=2.1',
    'beartype>=0.20',
    'dm-haiku>=0.0.14',
    'filelock>=3.12',
    'imageio-ffmpeg>=0.5,<0.8',
    'jax>=0.7.2',
    'jaxtyping>=0.3',
    'mediapy>=1.2',
    'ml_dtypes>=0.4',
    'numpy>=2.0',
    'safetensors>=0.4.3',
    'tqdm>=4.66',
]
_TEST = [
    'hypothesis>=6.100',
    'import-linter>=2.1',
    'ipykernel>=6.29',
    'mypy>=1.15',
    'nbclient>=0.10',
    'pyink>=24.10',
    'pytest>=8.3',
    'pytest-xdist>=3.6',
    'ruff>=0.9',
]

setuptools.setup(
    name='tapjax',
    version=_VERSION,
    description='Tracking Any Point in JAX and Haiku.',
    long_description=(_ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=setuptools.find_packages(include=['tapjax', 'tapjax.*']),
    package_data={'tapjax': ['py.typed']},
    python_requires='>=3.11',
    install_requires=_CORE,
    extras_require={'test': _TEST},
    entry_points={'console_scripts': ['tapjax = tapjax.cli:main']},
)
