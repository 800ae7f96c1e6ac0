"""The states of a model, and every event that moves it from one to another."""

from collections.abc import Mapping
from typing import Literal

State = Literal["cold", "starting", "ready", "draining", "failed"]
Event = Literal["wanted", "called_off", "ready", "leave", "left", "died", "gave_up"]

TRANSITIONS: Mapping[tuple[State, Event], State] = {
    ("cold", "wanted"): "starting",  # a request, or an explicit load
    ("failed", "wanted"): "starting",  # the first request after the backoff
    ("starting", "ready"): "ready",
    ("starting", "called_off"): "cold",  # nobody is waiting for it any longer
    ("starting", "died"): "cold",
    ("starting", "gave_up"): "failed",
    ("ready", "leave"): "draining",  # idle, evicted, asked to, retired or shutting down
    ("ready", "died"): "cold",
    ("ready", "gave_up"): "failed",
    ("draining", "left"): "cold",
    ("draining", "died"): "cold",
    ("draining", "gave_up"): "failed",
}
"""Nothing else can happen. A model that somebody is waiting for when it gets cold starts again.

A worker ends before its model gets cold: until then the state stays what it was. A model fails at
once, so that requests are refused while its worker is ended.
"""
