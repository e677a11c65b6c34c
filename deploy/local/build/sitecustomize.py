"""Lets carbon 1.1.10 build on Python 3.12 and newer: its setup.py calls a method that configparser has dropped.

On PYTHONPATH only while pip installs (see the Makefile). A release that needs no help is asked for in
graphite-project/carbon#954.
"""  # noqa: INP001 - Python imports it by its bare name

from configparser import RawConfigParser

if not hasattr(RawConfigParser, "readfp"):
    RawConfigParser.readfp = RawConfigParser.read_file  # type: ignore[method-assign, assignment]
