"""What users do, from the stream into their online features within a moment, and into the lake for the next batch.

source        what events are read from: read, acknowledge
redis_source  a Redis stream, read by consumer groups
kafka_source  a Kafka topic, read by consumer groups
sources       which of the two the settings name
fold          the features of a user, from the batch's state and the events since: plain Python, no input or output
items         what the fold must know of items
placed_events an event and its place in the stream, as a field of its user's hash
view_layout   where a feature view lies in that hash
online_users  a user's hash in Redis: the state, the events since, the features, changed together
landing       files of events on their way to the lake
merge         landed files into the lake's partitions
batch         what a materialisation and the stream job must know of each other
worker        the stream job: two readers, one for features and one for the lake
"""
