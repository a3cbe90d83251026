"""Whether the figures of a data set are to be believed: copies, groups, the honest estimate."""
