"""Questions for lists: origins inside the log, who is asked there, what is known of them, what they liked next."""
