"""Tables and forms of other people that are scored: CSV, COCO, LUNA16."""
