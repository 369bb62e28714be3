"""Tests of serving/folder/."""
