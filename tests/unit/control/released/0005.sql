-- A store as step 0005 of the schema made it, with rows in each table. Never changed.
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE audit (
	workspace VARCHAR NOT NULL,
	seq BIGINT NOT NULL,
	at DOUBLE NOT NULL,
	"key" VARCHAR,
	via VARCHAR NOT NULL,
	peer VARCHAR,
	method VARCHAR NOT NULL,
	route VARCHAR NOT NULL,
	target VARCHAR NOT NULL,
	status INTEGER NOT NULL,
	code VARCHAR,
	request_id VARCHAR NOT NULL,
	prev VARCHAR NOT NULL,
	hash VARCHAR NOT NULL,
	PRIMARY KEY (workspace, seq)
)
 WITHOUT ROWID

;
INSERT INTO "audit" VALUES('default',1,1700000001.0,'key01a0000000000000001','tcp','127.0.0.1','POST','/v1/sandboxes','/v1/sandboxes/1',201,NULL,'r1','0000000000000000000000000000000000000000000000000000000000000000','e374a11fa98d04035893997013c36d469081b8ee345403567b825e7a82c3b53b');
INSERT INTO "audit" VALUES('default',2,1700000002.0,'key01a0000000000000001','tcp','127.0.0.1','POST','/v1/sandboxes','/v1/sandboxes/2',201,NULL,'r2','e374a11fa98d04035893997013c36d469081b8ee345403567b825e7a82c3b53b','806d2431bd54253cfed7def3257e46408a4092c1121ff7276a38382b24464b6c');
CREATE TABLE idempotency (
	workspace VARCHAR NOT NULL, "key" VARCHAR NOT NULL, digest VARCHAR NOT NULL, sandbox VARCHAR NOT NULL, created DOUBLE NOT NULL,
	PRIMARY KEY (workspace, "key"), FOREIGN KEY(workspace) REFERENCES workspaces (id),
	FOREIGN KEY(sandbox) REFERENCES sandboxes (id) ON DELETE CASCADE
);
INSERT INTO "idempotency" VALUES('default','once','digest','sb01a0000000000000001',1700000003.0);
CREATE TABLE keys (
	id VARCHAR NOT NULL, workspace VARCHAR NOT NULL, name VARCHAR NOT NULL, digest VARCHAR NOT NULL, created DOUBLE NOT NULL,
	revoked DOUBLE, scope VARCHAR DEFAULT 'admin' NOT NULL, expires DOUBLE, used DOUBLE, quota JSON, PRIMARY KEY (id), FOREIGN KEY(workspace) REFERENCES workspaces (id), UNIQUE (digest)
);
INSERT INTO "keys" VALUES('key01a0000000000000001','default','first','d1',1700000001.0,NULL,'run',1900000000.0,1700000050.0,NULL);
INSERT INTO "keys" VALUES('key01a0000000000000002','default','gone','d2',1700000002.0,1700000099.5,'admin',NULL,NULL,NULL);
CREATE TABLE sandboxes (
	id VARCHAR NOT NULL, workspace VARCHAR NOT NULL, name VARCHAR, image VARCHAR NOT NULL, cpus DOUBLE NOT NULL,
	memory BIGINT NOT NULL, disk BIGINT NOT NULL, pids INTEGER NOT NULL, env JSON NOT NULL, labels JSON NOT NULL,
	workdir VARCHAR, user VARCHAR, network VARCHAR NOT NULL, lifetime DOUBLE, status VARCHAR NOT NULL, boot VARCHAR NOT NULL,
	created DOUBLE NOT NULL, started DOUBLE, expires DOUBLE, ended_at DOUBLE, ended_reason VARCHAR, ended_message VARCHAR, snapshot VARCHAR, parent VARCHAR, "key" VARCHAR,
	PRIMARY KEY (id), FOREIGN KEY(workspace) REFERENCES workspaces (id)
);
INSERT INTO "sandboxes" VALUES('sb01a0000000000000001','default','web','base',0.5,1099511627776,8796093022208,99,'{"A": "ä\n"}','{"a/b.c": "d"}','/w','u','none',3600.0,'running','boot-1',1700000003.0,1700000004.0,1700003603.0,NULL,NULL,NULL,NULL,NULL,'key01a0000000000000001');
INSERT INTO "sandboxes" VALUES('sb01a0000000000000002','default','web','base',1.0,1073741824,10737418240,512,'{}','{}',NULL,NULL,'open',NULL,'terminated','boot-1',1700000001.0,1700000002.0,NULL,1700000003.0,'killed','as asked',NULL,NULL,NULL);
CREATE TABLE snapshots (
	id VARCHAR NOT NULL,
	workspace VARCHAR NOT NULL,
	name VARCHAR,
	state VARCHAR NOT NULL,
	kind VARCHAR NOT NULL,
	sandbox VARCHAR NOT NULL,
	image VARCHAR NOT NULL,
	parent VARCHAR,
	path VARCHAR,
	template BOOLEAN NOT NULL,
	size BIGINT NOT NULL,
	stored BIGINT NOT NULL,
	cpus DOUBLE NOT NULL,
	memory BIGINT NOT NULL,
	disk BIGINT NOT NULL,
	paused DOUBLE NOT NULL,
	labels JSON NOT NULL,
	source JSON NOT NULL,
	created DOUBLE NOT NULL,
	expires DOUBLE,
	ended_at DOUBLE,
	ended_reason VARCHAR,
	PRIMARY KEY (id),
	FOREIGN KEY(workspace) REFERENCES workspaces (id)
);
INSERT INTO "snapshots" VALUES('sn01a0000000000000001','default','moment','ready','filesystem','sb01a0000000000000001','base',NULL,NULL,0,1000,400,0.5,1099511627776,8796093022208,0.25,'{"l": "1"}','{"env": {"A": "\u00e4\n"}, "workdir": "/w", "user": "u", "pids": 99}',1700000010.0,1800000000.0,NULL,NULL);
INSERT INTO "snapshots" VALUES('sn01a0000000000000002','default',NULL,'ready','memory','sb01a0000000000000002','base','sn01a0000000000000001',NULL,1,2000,800,1.0,1073741824,10737418240,0.25,'{}','{"env": {}, "workdir": null, "user": null, "pids": null}',1700000011.0,NULL,NULL,NULL);
INSERT INTO "snapshots" VALUES('sn01a0000000000000003','default','old','ready','directory','sb01a0000000000000001','base',NULL,'/srv',0,3000,900,1.0,1073741824,10737418240,0.0,'{}','{"env": {}, "workdir": null, "user": null, "pids": null}',1700000012.0,NULL,1700000020.0,'deleted');
CREATE TABLE templates (
	id VARCHAR NOT NULL,
	workspace VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	recipe JSON NOT NULL,
	sandbox VARCHAR NOT NULL,
	snapshot VARCHAR,
	created DOUBLE NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(workspace) REFERENCES workspaces (id)
);
INSERT INTO "templates" VALUES('tp01a0000000000000001','default','ready','851733cdf848d69fa345c10271755e27b896165db8091b1af083123a65fcfd41','{"name": "ready", "image": "base", "command": "sleep 1", "ready": {"port": 80, "url": null, "file": null, "process": null, "command": null, "timeout": 60.0, "interval": 0.1}, "limits": {"cpus": 1.0, "memory": 1073741824, "disk": 10737418240, "pids": 1024}, "env": {}, "labels": {}, "workdir": null, "user": null}','sb01a0000000000000009','sn01a0000000000000002',1700000011.5);
CREATE TABLE workspaces (id VARCHAR NOT NULL, created DOUBLE NOT NULL, quota JSON, ended DOUBLE, PRIMARY KEY (id));
INSERT INTO "workspaces" VALUES('default',1700000000.0,'{"sandboxes": 5}',NULL);
CREATE INDEX sandboxes_by_workspace ON sandboxes (workspace, id);
CREATE INDEX sandboxes_live ON sandboxes (ended_at);
CREATE UNIQUE INDEX sandboxes_live_name ON sandboxes (workspace, name) WHERE ended_at IS NULL AND name IS NOT NULL;
CREATE INDEX ix_idempotency_created ON idempotency (created);
CREATE INDEX sandboxes_by_snapshot ON sandboxes (snapshot);
CREATE INDEX sandboxes_by_parent ON sandboxes (parent);
CREATE INDEX snapshots_by_workspace ON snapshots (workspace, id);
CREATE INDEX snapshots_by_sandbox ON snapshots (sandbox);
CREATE INDEX snapshots_by_parent ON snapshots (parent);
CREATE INDEX snapshots_live ON snapshots (ended_at, expires);
CREATE UNIQUE INDEX snapshots_live_name ON snapshots (workspace, name) WHERE ended_at IS NULL AND name IS NOT NULL;
CREATE UNIQUE INDEX templates_name ON templates (workspace, name) WHERE snapshot IS NOT NULL;
CREATE INDEX keys_by_workspace ON keys (workspace, id);
CREATE INDEX audit_by_time ON audit (workspace, at);
CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
