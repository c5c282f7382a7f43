"""Starts the stages on a cluster or on this machine: sites, submissions, the work of the jobs, requeueing."""
