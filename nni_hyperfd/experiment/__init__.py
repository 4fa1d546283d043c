"""The client's side of NNI: advisor, tuner, the hook inside a trial, the manager's REST calls."""
