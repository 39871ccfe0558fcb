"""pytest's plugin for the rule pages: every example under rules/ is a test."""

from gradlint.testing import pytest_collect_file

__all__ = ["pytest_collect_file"]
