"""Statistics that know no lesion: AUC, intervals, agreement, reader studies."""
