"""OpenAI's SDK against the cluster: its tests, unchanged."""

# ruff: noqa: F403
from tests.clients.test_openai import *
