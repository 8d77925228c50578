"""Defines every event of a run: one frozen class each, with severity and headline"""
