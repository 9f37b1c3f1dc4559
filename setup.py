"""Packaging of tapjax: `pip install .` installs the library and its command."""

import pathlib
import re

import setuptools

_ROOT = pathlib.Path(__file__).parent
(_VERSION,) = re.findall(
    r"^__version__ = '(.*)'$",
    (_ROOT / 'tapjax' / '__init__.py').read_text(encoding='utf-8'),
    re.M,
)

_CORE = [
    'absl-py>=2.1',
    'av>=15.0',
    'beartype>=0.20',
    'dm-haiku>=0.0.14',
    'filelock>=3.12',
    'jax>=0.7.2',
    'jaxtyping>=0.3',
    'ml_dtypes>=0.4',
    'numpy>=2.0',
    'safetensors>=0.4.3',
    'tabulate>=0.9',
    'tqdm>=4.66',
]
# Pillow resizes and decodes the videos of benchmarks as their numbers need.
_EVALUATE = [
    'pillow>=10.1',
]
# Pillow also reads training data and draws figures of training; OpenCV reads
# pictures of 16 bits. TensorBoard shows what tensorboardX writes.
_TRAIN = [
    *_EVALUATE,
    'opencv-python-headless>=4.8',
    'optax>=0.2.4',
    'orbax-checkpoint>=0.11.30',
    'tensorboard>=2.18',
    'tensorboardX>=2.6.2',
]
# The runner knows the settings of training, whatever it is asked to do. OpenCV
# also has a classical tracker to compare with.
_BENCHMARK = _TRAIN
# ONNX files; StableHLO needs nothing but JAX. Older versions of jax2onnx do not
# know all operations of JAX that trackers use; this one needs JAX 0.8.1.
_EXPORT = [
    'jax2onnx>=0.17',
    'onnx>=1.18',
    'onnxruntime>=1.20',
]
# Finds moving objects, for those who have no detector at hand.
_OBJECTS = [
    'opencv-python-headless>=4.8',
]
# A camera and a window; whatever is headless does without.
_LIVE = [
    'opencv-python>=4.8',
]
# mediapy shows videos, through an ffmpeg program; video files are read and
# written without both.
_NOTEBOOK = [
    *_EVALUATE,
    'imageio-ffmpeg>=0.5',
    'ipykernel>=6.29',
    'mediapy>=1.2',
    'nbclient>=0.10',
]
# The documentation, built offline and strict.
_DOCS = [
    'myst-nb>=1.1',
    'sphinx>=8.0',
    'sphinx-book-theme>=1.1',
]
_TEST = [
    *_BENCHMARK,
    *_DOCS,
    *_EXPORT,
    *_NOTEBOOK,
    *_OBJECTS,
    *_TRAIN,
    'build>=1.2',
    'hypothesis>=6.100',
    'import-linter>=2.5',
    'mypy>=1.15',
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
    # Those that CI tests; newer ones are expected to work.
    classifiers=[
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Typing :: Typed',
    ],
    packages=setuptools.find_packages(include=['tapjax', 'tapjax.*']),
    package_data={'tapjax': ['py.typed', 'weights/*.safetensors']},
    python_requires='>=3.11',
    install_requires=_CORE,
    extras_require={
        'benchmark': _BENCHMARK,
        'docs': _DOCS,
        'evaluate': _EVALUATE,
        'export': _EXPORT,
        'live': _LIVE,
        'notebook': _NOTEBOOK,
        'objects': _OBJECTS,
        'train': _TRAIN,
        'test': _TEST,
    },
    entry_points={'console_scripts': ['tapjax = tapjax.cli.main:main']},
)
