"""What the planner of this system decides by, and what a plan costs."""
