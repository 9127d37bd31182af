"""Measurements to repeat, a file per question: `python -m benchmarks NAME`. Not part of the installed package.

A benchmark is a module with `main(arguments)`: it reads its own flags, prints a table and a line of JSON.
"""
