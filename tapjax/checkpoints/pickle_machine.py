"""Stack machine for the instructions of pickles, without execution.

It supports the instructions of every protocol. A global is represented by its
name, and a call looks up that name in a table of constructors. A name outside
of the table becomes an inert placeholder that ignores all operations.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import pickletools
from typing import Any

import numpy as np

from tapjax.checkpoints.pickled_arrays import describe
from tapjax.checkpoints.placeholders import Placeholder
from tapjax.checkpoints.placeholders import Unfinished

_MOST_INSTRUCTIONS = 2_000_000


class Machine:
  """Interpreter of pickles that yields plain values and placeholders.

  Args:
    constructors: functions by dotted names, in addition to the built-in ones.
    load_persistent: from a persistent id to its value; None refuses ids.
    allowance: bytes that constructed arrays and byte strings may take.
  """

  def __init__(
      self,
      constructors: Mapping[str, Callable[..., Any]],
      load_persistent: Callable[[Any], Any] | None,
      allowance: int,
  ):
    self._constructors: dict[str, Callable[..., Any]] = {
        '_codecs.encode': _encode,
        'builtins.bytes': _make_empty_bytes,
        '__builtin__.bytes': _make_empty_bytes,
        'collections.OrderedDict': _make_empty_dict,
        'haiku._src.data_structures.FlatMapping': _unwrap_mapping,
        'haiku._src.data_structures.FlatMap': _unwrap_mapping,
        'haiku._src.data_structures.frozendict': _unwrap_mapping,
        **constructors,
    }
    self._load_persistent = load_persistent
    self._allowance = allowance
    self._stack: list[Any] = []
    self._marks: list[int] = []
    self._memo: dict[int, Any] = {}

  def run(
      self, instructions: Iterable[tuple[pickletools.OpcodeInfo, Any, Any]]
  ) -> Any:
    """Interprets instructions of `pickletools.genops` and returns the value.

    Raises ValueError for a malformed, endless or oversized pickle.
    """
    for count, (opcode, argument, _) in enumerate(instructions):
      if count >= _MOST_INSTRUCTIONS:
        raise ValueError(f'it has more than {_MOST_INSTRUCTIONS} instructions')
      if opcode.name == 'STOP':
        break
      self._execute(opcode.name, argument)
    return self._pop()

  def _execute(self, name: str, argument: Any) -> None:
    push = self._stack.append
    match name:
      case 'INT' | 'BININT' | 'BININT1' | 'BININT2':
        push(argument)
      case 'LONG' | 'LONG1' | 'LONG4' | 'FLOAT' | 'BINFLOAT':
        push(argument)
      case 'STRING' | 'BINSTRING' | 'SHORT_BINSTRING' | 'UNICODE':
        push(argument)
      case 'BINUNICODE' | 'SHORT_BINUNICODE' | 'BINUNICODE8':
        push(argument)
      case 'BINBYTES' | 'SHORT_BINBYTES' | 'BINBYTES8' | 'BYTEARRAY8':
        push(argument)
      case 'BINGET' | 'LONG_BINGET' | 'GET':
        if argument not in self._memo:
          raise ValueError(f'it fetches value {argument}, which was not stored')
        push(self._memo[argument])
      case 'BINPUT' | 'LONG_BINPUT' | 'PUT':
        self._memorize(argument)
      case 'MEMOIZE':
        self._memorize(len(self._memo))
      case 'PROTO' | 'FRAME':
        pass
      case 'MARK':
        self._marks.append(len(self._stack))
      case 'POP':
        if self._marks and self._marks[-1] == len(self._stack):
          self._marks.pop()
        else:
          self._pop()
      case 'POP_MARK':
        self._pop_to_mark()
      case 'DUP':
        push(self._get_top())
      case 'NONE':
        push(None)
      case 'NEWTRUE' | 'NEWFALSE':
        push(name == 'NEWTRUE')
      case 'EMPTY_TUPLE':
        push(())
      case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
        push(tuple([self._pop() for _ in range(int(name[-1]))][::-1]))
      case 'TUPLE':
        push(tuple(self._pop_to_mark()))
      case 'EMPTY_LIST':
        push([])
      case 'LIST':
        push(self._pop_to_mark())
      case 'APPEND' | 'ADDITEMS' | 'APPENDS':
        values = [self._pop()] if name == 'APPEND' else self._pop_to_mark()
        _append(self._get_top(), values)
      case 'EMPTY_DICT':
        push({})
      case 'DICT':
        items = self._pop_to_mark()
        push({})
        _set_items(self._get_top(), items)
      case 'SETITEM':
        value, key = self._pop(), self._pop()
        _set_items(self._get_top(), [key, value])
      case 'SETITEMS':
        items = self._pop_to_mark()
        _set_items(self._get_top(), items)
      case 'EMPTY_SET':
        push(Placeholder('builtins.set'))
      case 'FROZENSET':
        self._pop_to_mark()
        push(Placeholder('builtins.frozenset'))
      case 'GLOBAL':
        push(Placeholder(argument.replace(' ', '.')))
      case 'STACK_GLOBAL':
        names = [self._pop(), self._pop()][::-1]
        if not all(isinstance(name, str) for name in names):
          raise ValueError('the name of a global is not text')
        push(Placeholder('.'.join(names)))
      case 'REDUCE' | 'NEWOBJ':
        arguments, function = self._pop(), self._pop()
        push(self._call(function, arguments))
      case 'NEWOBJ_EX':
        _, arguments, function = self._pop(), self._pop(), self._pop()
        push(self._call(function, arguments))
      case 'OBJ':
        operands = self._pop_to_mark() or [None]
        push(self._call(operands[0], tuple(operands[1:])))
      case 'INST':
        function = Placeholder(argument.replace(' ', '.'))
        push(self._call(function, tuple(self._pop_to_mark())))
      case 'BUILD':
        self._build(self._pop())
      case 'BINPERSID' | 'PERSID':
        key = self._pop() if name == 'BINPERSID' else argument
        if self._load_persistent is None:
          raise ValueError('it refers to data outside of the pickle')
        push(self._load_persistent(key))
      case _:
        raise ValueError(f'the instruction {name} is not supported')

  def _get_top(self) -> Any:
    if not self._stack:
      raise ValueError('an instruction lacks its operand')
    return self._stack[-1]

  def _pop(self) -> Any:
    if not self._stack:
      raise ValueError('an instruction lacks its operand')
    return self._stack.pop()

  def _pop_to_mark(self) -> list[Any]:
    if not self._marks:
      raise ValueError('an instruction lacks its operands')
    start = self._marks.pop()
    values = self._stack[start:]
    del self._stack[start:]
    return values

  def _memorize(self, key: int) -> None:
    value = self._get_top()
    self._memo[key] = value
    if isinstance(value, Unfinished):
      value.memo_keys.append(key)

  def _call(self, function: Any, arguments: Any) -> Any:
    if not isinstance(function, Placeholder):
      raise ValueError(f'it calls a value {describe(function)}')
    if not isinstance(arguments, tuple):
      raise ValueError('the arguments of a call are malformed')
    constructor = self._constructors.get(function.name)
    if constructor is None:
      return function
    return self._charge(constructor(*arguments))

  def _build(self, state: Any) -> None:
    target = self._pop()
    finished = target
    if isinstance(target, Unfinished):
      finished = self._charge(target.finish(state))
      for key in target.memo_keys:
        if self._memo[key] is target:
          self._memo[key] = finished
    self._stack.append(finished)

  def _charge(self, value: Any) -> Any:
    """Returns a constructed value; ValueError once the allowance is spent."""
    if isinstance(value, np.ndarray):
      self._allowance -= value.size if value.dtype.hasobject else value.nbytes
    elif isinstance(value, bytes):
      self._allowance -= len(value)
    if self._allowance < 0:
      raise ValueError('it unpacks to much more than its own size')
    return value


def _append(target: Any, values: list[Any]) -> None:
  if isinstance(target, list):
    target.extend(values)
  elif not isinstance(target, Placeholder):
    raise ValueError(f'it appends to a value {describe(target)}')


def _set_items(target: Any, items: list[Any]) -> None:
  """Adds alternating keys and values; keys of other types are replaced."""
  if len(items) % 2:
    raise ValueError('a dict has a key without a value')
  if isinstance(target, dict):
    for key, value in zip(items[::2], items[1::2], strict=True):
      if not isinstance(key, str | bytes | int | float | None):
        key = Placeholder(f'a key {describe(key)}')
      target[key] = value
  elif not isinstance(target, Placeholder):
    raise ValueError(f'it sets items of a value {describe(target)}')


def _encode(text: Any, encoding: Any) -> bytes:
  """Replaces `_codecs.encode`, which old protocols use for bytes."""
  if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
    raise ValueError('text that stands for bytes is malformed')
  return text.encode('latin-1')


def _make_empty_bytes() -> bytes:
  return b''


def _make_empty_dict() -> dict[Any, Any]:
  return {}


def _unwrap_mapping(mapping: Any) -> dict[Any, Any]:
  if not isinstance(mapping, dict):
    raise ValueError(f'a Haiku mapping wraps a value {describe(mapping)}')
  return mapping
