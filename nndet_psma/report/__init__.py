"""What people look at: one HTML page per model, figures of the fingerprint, structured reports of patients."""
