"""A raw task: folders, description, cases, tables, folds."""
