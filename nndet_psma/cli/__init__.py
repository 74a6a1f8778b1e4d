"""The commands: parse, call a stage, print."""
