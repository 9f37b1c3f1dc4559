"""Tracking frame by frame: sessions, the rule for lost points, files."""

from tapjax.streaming.lost import DEFAULT_RULE
from tapjax.streaming.lost import LostRule
from tapjax.streaming.session import forget
from tapjax.streaming.session import Session
from tapjax.streaming.session_files import read_session
from tapjax.streaming.session_files import write_session

__all__ = [
    'DEFAULT_RULE',
    'LostRule',
    'Session',
    'forget',
    'read_session',
    'write_session',
]
