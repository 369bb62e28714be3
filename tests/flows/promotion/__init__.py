"""Tests of `flows.promotion`."""
