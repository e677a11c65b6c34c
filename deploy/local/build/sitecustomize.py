"""Makes carbon 1.1.10 build on Python 3.12 and newer, whose configparser lacks a method that its setup.py calls.

It is on PYTHONPATH only while pip installs (see the Makefile), until graphite-project/carbon#954 is released.
"""  # noqa: INP001 - Python imports it by its bare name

from configparser import RawConfigParser

if not hasattr(RawConfigParser, "readfp"):
    RawConfigParser.readfp = RawConfigParser.read_file  # type: ignore[method-assign, assignment]
