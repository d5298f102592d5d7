"""All metadata is in setup.cfg; this file serves tools that call setup.py."""

from setuptools import setup

setup()
