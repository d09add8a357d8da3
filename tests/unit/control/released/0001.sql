-- A store as the first step of the schema made it, with rows in each table. Never changed.
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO alembic_version VALUES('0001');
CREATE TABLE workspaces (id VARCHAR NOT NULL, created DOUBLE NOT NULL, PRIMARY KEY (id));
INSERT INTO workspaces VALUES('default',1.7e9);
CREATE TABLE keys (
	id VARCHAR NOT NULL, workspace VARCHAR NOT NULL, name VARCHAR NOT NULL, digest VARCHAR NOT NULL, created DOUBLE NOT NULL,
	revoked DOUBLE, PRIMARY KEY (id), FOREIGN KEY(workspace) REFERENCES workspaces (id), UNIQUE (digest)
);
INSERT INTO keys VALUES('key01a0000000000000001','default','first','d1',1700000001.0,NULL);
INSERT INTO keys VALUES('key01a0000000000000002','default','gone','d2',1700000002.0,1700000099.5);
CREATE TABLE sandboxes (
	id VARCHAR NOT NULL, workspace VARCHAR NOT NULL, name VARCHAR, image VARCHAR NOT NULL, cpus DOUBLE NOT NULL,
	memory BIGINT NOT NULL, disk BIGINT NOT NULL, pids INTEGER NOT NULL, env JSON NOT NULL, labels JSON NOT NULL,
	workdir VARCHAR, user VARCHAR, network VARCHAR NOT NULL, lifetime DOUBLE, status VARCHAR NOT NULL, boot VARCHAR NOT NULL,
	created DOUBLE NOT NULL, started DOUBLE, expires DOUBLE, ended_at DOUBLE, ended_reason VARCHAR, ended_message VARCHAR,
	PRIMARY KEY (id), FOREIGN KEY(workspace) REFERENCES workspaces (id)
);
INSERT INTO sandboxes VALUES(
	'sb01a0000000000000001','default','web','base',0.5,1099511627776,8796093022208,99,'{"A": "ä\n"}','{"a/b.c": "d"}','/w','u',
	'none',3600.0,'running','boot-1',1700000003.0,1700000004.0,1700003603.0,NULL,NULL,NULL
);
INSERT INTO sandboxes VALUES(
	'sb01a0000000000000002','default','web','base',1.0,1073741824,10737418240,512,'{}','{}',NULL,NULL,'open',NULL,'terminated',
	'boot-1',1700000001.0,1700000002.0,NULL,1700000003.0,'killed','as asked'
);
CREATE TABLE idempotency (
	workspace VARCHAR NOT NULL, "key" VARCHAR NOT NULL, digest VARCHAR NOT NULL, sandbox VARCHAR NOT NULL, created DOUBLE NOT NULL,
	PRIMARY KEY (workspace, "key"), FOREIGN KEY(workspace) REFERENCES workspaces (id),
	FOREIGN KEY(sandbox) REFERENCES sandboxes (id) ON DELETE CASCADE
);
INSERT INTO idempotency VALUES('default','once','digest','sb01a0000000000000001',1700000003.0);
CREATE INDEX sandboxes_by_workspace ON sandboxes (workspace, id);
CREATE INDEX sandboxes_live ON sandboxes (ended_at);
CREATE UNIQUE INDEX sandboxes_live_name ON sandboxes (workspace, name) WHERE ended_at IS NULL AND name IS NOT NULL;
CREATE INDEX ix_idempotency_created ON idempotency (created);
