"""One function per command: reads artefacts, asks the system, writes artefacts."""
