"""Search regions and organs for tasks that lack their masks: by a rule on vessels, or by a trained segmenter."""
