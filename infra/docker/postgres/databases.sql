-- PostgreSQL's image makes Airflow's database; MLflow's is made here, on the first start of an empty volume.
CREATE DATABASE mlflow;
