"""Answers users: recall → seen filter → ranking → slate, from memory, Redis and the model server.

    python -m serving.recommender                       serves
    python -m serving.recommender bench --requests 300  measures a running one

Two pointers decide what it answers from: `online/current.json` (an OnlineSnapshot) and `releases/.../current.json` (a
Release). A request takes two that fit each other, together. A third, `canary.json`, names a version that gets a share
of the requests as well, for comparison. Each stage has a deadline and something to fall back on; `degraded` in the
answer names what was missing.

settings        every setting
errors          what can go wrong
catalogue       items as arrays, in memory
embeddings      item vectors, aligned with the catalogue
snapshot        loads catalogue and vectors of an OnlineSnapshot, checked
release         what of a Release the recommender needs, and how it ranks with a snapshot
user_features   one user's features and history, with one round trip
user_vector     a user among the item vectors, from what was liked last
recall/         channels, and how they are blended
ranking         scores from the model server
slate           the order, and k items of it
reasons         a sentence for each item
engine          one request through all stages, with deadlines and fallbacks
watcher         follows the pointers while requests go on
recorder        what becomes of a ranking request when its answer has gone out
request_sampling  a bounded random sample of the requests, for the next versions
shadowing       a share of the requests goes to the canary as well
readiness       which part works
answers         what the API returns
problems        one shape for every error body
event_log       where accepted events go
kafka_event_log  the same where that is Kafka
event_routes    the way in for events
api             the other routes
server          the process: socket, workers
bench           latency of a running recommender
"""
