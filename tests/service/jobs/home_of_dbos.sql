BEGIN TRANSACTION;
CREATE TABLE checkpoints (
	seq INTEGER NOT NULL, 
	job VARCHAR(64) NOT NULL, 
	attempt INTEGER NOT NULL, 
	created_at FLOAT NOT NULL, 
	step INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	metrics JSON NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "checkpoints" VALUES(1,'ftjob-lost',1,1.7959028627540843487e+09,5,'jobs/ftjob-lost/attempt-1/checkpoints/step-00000005','{"train_loss": 0.16666666666666666}');
CREATE TABLE events (
	seq INTEGER NOT NULL, 
	job VARCHAR(64) NOT NULL, 
	attempt INTEGER NOT NULL, 
	created_at FLOAT NOT NULL, 
	level VARCHAR(8) NOT NULL, 
	type VARCHAR(8) NOT NULL, 
	message TEXT NOT NULL, 
	data JSON, 
	PRIMARY KEY (seq)
);
CREATE TABLE feedback (
	seq INTEGER NOT NULL, 
	model VARCHAR(255) NOT NULL, 
	text TEXT NOT NULL, 
	label VARCHAR(256), 
	correct_label VARCHAR(256) NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (seq)
);
CREATE TABLE files (
	seq INTEGER NOT NULL, 
	id VARCHAR(64) NOT NULL, 
	filename VARCHAR(255) NOT NULL, 
	format VARCHAR(16) NOT NULL, 
	purpose VARCHAR(32) NOT NULL, 
	bytes BIGINT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
INSERT INTO "files" VALUES(1,'file-1','a.csv','csv','fine-tune',15,'ec6a4a4aa824691f0804aabf5ebd23d51db8334b01e907f0f790bbe42866939a',1.79590286008083200456e+09);
CREATE TABLE idempotency (
	owner VARCHAR(64) NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	answer JSON NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (owner, "key")
);
CREATE TABLE jobs (
	seq INTEGER NOT NULL, 
	id VARCHAR(64) NOT NULL, 
	created_at FLOAT NOT NULL, 
	status VARCHAR(24) NOT NULL, 
	control VARCHAR(8), 
	model VARCHAR(255) NOT NULL, 
	spec TEXT NOT NULL, 
	task VARCHAR(32) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	seed INTEGER NOT NULL, 
	training_file VARCHAR(320) NOT NULL, 
	validation_file VARCHAR(320), 
	feedback_until INTEGER, 
	hyperparameters JSON NOT NULL, 
	columns JSON NOT NULL, 
	metadata JSON, 
	dispatch INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	crashes INTEGER NOT NULL, 
	lease VARCHAR(64), 
	started_at FLOAT, 
	finished_at FLOAT, 
	estimated_finish FLOAT, 
	error_code VARCHAR(64), 
	error_message TEXT, 
	error_param TEXT, 
	fine_tuned_model VARCHAR(320), 
	trained_tokens BIGINT, 
	result JSON, 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
INSERT INTO "jobs" VALUES(1,'ftjob-lost',1.79590286011307668687e+09,'running',NULL,'sensors','sensors','anomaly','ft:sensors:local:lost',0,'file-1',NULL,NULL,'{"kind": "records"}','{}','null',1,1,0,'lease-17d22122281e7d32',1.79590286103099775315e+09,NULL,1.79590286314154624937e+09,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(2,'ftjob-older',1.79590286056248331063e+09,'queued',NULL,'sensors','sensors','anomaly','ft:sensors:local:older',0,'file-1',NULL,NULL,'{"kind": "records"}','{}','null',1,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(3,'ftjob-younger',1.79590286059542703633e+09,'queued',NULL,'sensors','sensors','anomaly','ft:sensors:local:younger',0,'file-1',NULL,NULL,'{"kind": "records"}','{}','null',1,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE sonde_schema (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "sonde_schema" VALUES(1);
CREATE TABLE worker_lease (
	id VARCHAR(64) NOT NULL, 
	worker VARCHAR(64) NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	pid INTEGER NOT NULL, 
	started_at FLOAT NOT NULL, 
	expires_at FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "worker_lease" VALUES('lease-17d22122281e7d32','vm-17765-cb21413d','vm',17765,1.79590285050200152393e+09,1.79590287681743049621e+09);
CREATE INDEX ix_feedback_model ON feedback (model);
CREATE INDEX ix_jobs_status ON jobs (status);
CREATE INDEX ix_events_job ON events (job);
CREATE INDEX ix_checkpoints_job ON checkpoints (job);
COMMIT;
