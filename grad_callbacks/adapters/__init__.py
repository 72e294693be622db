"""Callbacks for Trainers that are not Lightning's, one file each."""
