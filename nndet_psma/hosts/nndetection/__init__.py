"""Inside genuine nnDetection: repairs, launcher, configuration, planners and modules, exchange of results."""
