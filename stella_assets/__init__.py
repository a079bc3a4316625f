"""WHAT is made: one package a step, in the order that data flows."""
