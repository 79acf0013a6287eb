-- A store of schema 0003: SQLite's own dump of a file that the release before 0004 brought up from 0001.
BEGIN TRANSACTION;
CREATE TABLE assembly (
	pk INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	namespace_pk INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	description TEXT NOT NULL, 
	topics TEXT NOT NULL, 
	metadata TEXT NOT NULL, 
	revision INTEGER DEFAULT 0 NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	CONSTRAINT ck_assembly_metadata CHECK (json_type(metadata) = 'object'), 
	CONSTRAINT ck_assembly_topics CHECK (json_type(topics) = 'array'), 
	CONSTRAINT fk_assembly_namespace_pk FOREIGN KEY(namespace_pk) REFERENCES namespace (pk), 
	CONSTRAINT uq_assembly_namespace_pk_id UNIQUE (namespace_pk, id)
);
INSERT INTO "assembly" VALUES(1,1,'g','Group','d','["b","a"]','{"k":null}',3,1714566615123456,1714566615123456);
INSERT INTO "assembly" VALUES(2,1,'h','Lone','','[]','{}',0,1714566615123456,1714566615123456);
CREATE TABLE assembly_member (
	assembly_pk INTEGER NOT NULL, 
	memory_pk INTEGER NOT NULL, 
	CONSTRAINT pk_assembly_member PRIMARY KEY (assembly_pk, memory_pk), 
	CONSTRAINT fk_assembly_member_assembly_pk FOREIGN KEY(assembly_pk) REFERENCES assembly (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_assembly_member_memory_pk FOREIGN KEY(memory_pk) REFERENCES memory (pk) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "assembly_member" VALUES(1,1);
INSERT INTO "assembly_member" VALUES(1,2);
INSERT INTO "assembly_member" VALUES(1,6);
CREATE TABLE assembly_tag (
	assembly_pk INTEGER NOT NULL, 
	tag_pk INTEGER NOT NULL, 
	CONSTRAINT pk_assembly_tag PRIMARY KEY (assembly_pk, tag_pk), 
	CONSTRAINT fk_assembly_tag_assembly_pk FOREIGN KEY(assembly_pk) REFERENCES assembly (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_assembly_tag_tag_pk FOREIGN KEY(tag_pk) REFERENCES tag (pk) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "assembly_tag" VALUES(1,2);
CREATE TABLE assembly_vector (
	assembly_pk INTEGER NOT NULL, 
	space_pk INTEGER NOT NULL, 
	sum BLOB NOT NULL, 
	length FLOAT NOT NULL, 
	count INTEGER NOT NULL, 
	vector BLOB, 
	checksum INTEGER, 
	revision INTEGER NOT NULL, 
	CONSTRAINT pk_assembly_vector PRIMARY KEY (assembly_pk, space_pk), 
	CONSTRAINT ck_assembly_vector_vector CHECK (vector IS NULL OR (typeof(vector) = 'blob' AND length(vector) % 4 = 0)), 
	CONSTRAINT fk_assembly_vector_assembly_pk FOREIGN KEY(assembly_pk) REFERENCES assembly (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_assembly_vector_space_pk FOREIGN KEY(space_pk) REFERENCES vector_space (pk)
);
INSERT INTO "assembly_vector" VALUES(1,2,X'000000206F1CFF3F00000040EA25D43F000000807F2DB8BF000000C094DB5F3F',2.00000001682214,2,X'4F6B7C3FA978233E652A44BD173D813A',1507891417,3);
INSERT INTO "assembly_vector" VALUES(2,2,X'0000000000000000000000000000000000000000000000000000000000000000',0.0,0,NULL,NULL,0);
CREATE TABLE change_log (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	space_pk INTEGER NOT NULL, 
	pk INTEGER NOT NULL
);
INSERT INTO "change_log" VALUES(1,1,1);
INSERT INTO "change_log" VALUES(2,1,2);
INSERT INTO "change_log" VALUES(3,1,3);
INSERT INTO "change_log" VALUES(4,1,4);
INSERT INTO "change_log" VALUES(5,1,5);
INSERT INTO "change_log" VALUES(6,1,7);
INSERT INTO "change_log" VALUES(7,2,1);
INSERT INTO "change_log" VALUES(8,2,1);
INSERT INTO "change_log" VALUES(9,2,1);
INSERT INTO "change_log" VALUES(10,2,1);
INSERT INTO "change_log" VALUES(11,2,1);
INSERT INTO "change_log" VALUES(12,2,2);
INSERT INTO "change_log" VALUES(13,2,2);
INSERT INTO "change_log" VALUES(14,1,8);
INSERT INTO "change_log" VALUES(15,1,8);
CREATE TABLE index_chunk (
	snapshot_pk INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	data BLOB NOT NULL, 
	digest BLOB NOT NULL, 
	CONSTRAINT pk_index_chunk PRIMARY KEY (snapshot_pk, number), 
	CONSTRAINT fk_index_chunk_snapshot_pk FOREIGN KEY(snapshot_pk) REFERENCES index_snapshot (pk) ON DELETE CASCADE
);
CREATE TABLE index_snapshot (
	pk INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	space_pk INTEGER NOT NULL, 
	epoch TEXT NOT NULL, 
	seq INTEGER NOT NULL, 
	parameters TEXT NOT NULL, 
	chunks INTEGER NOT NULL, 
	complete INTEGER DEFAULT 0 NOT NULL, 
	CONSTRAINT ck_index_snapshot_parameters CHECK (json_type(parameters) = 'object'), 
	CONSTRAINT ck_index_snapshot_complete CHECK (complete IN (0, 1)), 
	CONSTRAINT fk_index_snapshot_space_pk FOREIGN KEY(space_pk) REFERENCES vector_space (pk) ON DELETE CASCADE
);
CREATE TABLE memory (
	pk INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	namespace_pk INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	content TEXT NOT NULL, 
	metadata TEXT NOT NULL, 
	importance FLOAT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	accessed_at BIGINT, 
	access_count INTEGER NOT NULL, 
	CONSTRAINT ck_memory_metadata CHECK (json_type(metadata) = 'object'), 
	CONSTRAINT ck_memory_importance CHECK (importance BETWEEN 0 AND 1), 
	CONSTRAINT fk_memory_namespace_pk FOREIGN KEY(namespace_pk) REFERENCES namespace (pk), 
	CONSTRAINT uq_memory_namespace_pk_id UNIQUE (namespace_pk, id)
);
INSERT INTO "memory" VALUES(1,1,'m0','memory 0 é
''quoted''','{"user_id":"u0","source":{"kind":"chat","n":0},"a.b":[1,null,true,0.1]}',0.0,1714566615123456,1714566615123456,NULL,NULL,0);
INSERT INTO "memory" VALUES(2,1,'m1','memory 1 é
''quoted''','{"user_id":"u1","source":{"kind":"chat","n":1},"a.b":[1,null,true,0.1]}',0.2,1714570215123456,1714653015123456,NULL,1795379111708648,1);
INSERT INTO "memory" VALUES(3,1,'m2','memory 2 é
''quoted''','{"user_id":"u0","source":{"kind":"chat","n":2},"a.b":[1,null,true,0.1]}',0.4,1714573815123456,1714739415123456,NULL,1795379111708648,1);
INSERT INTO "memory" VALUES(4,1,'m3','memory 3 é
''quoted''','{"user_id":"u1","source":{"kind":"chat","n":3},"a.b":[1,null,true,0.1]}',0.6,1714577415123456,1714825815123456,221845392000000000,NULL,0);
INSERT INTO "memory" VALUES(5,1,'m4','memory 4 é
''quoted''','{"user_id":"u0","source":{"kind":"chat","n":4},"a.b":[1,null,true,0.1]}',0.8,1714581015123456,1714912215123456,NULL,NULL,0);
INSERT INTO "memory" VALUES(6,1,'m5','memory 5 é
''quoted''','{"user_id":"u1","source":{"kind":"chat","n":5},"a.b":[1,null,true,0.1]}',1.0,1714584615123456,1714998615123456,NULL,NULL,0);
INSERT INTO "memory" VALUES(7,2,'m0','of ada','{}',0.5,1714566615123456,1714566615123456,NULL,NULL,0);
CREATE TABLE memory_tag (
	memory_pk INTEGER NOT NULL, 
	tag_pk INTEGER NOT NULL, 
	CONSTRAINT pk_memory_tag PRIMARY KEY (memory_pk, tag_pk), 
	CONSTRAINT fk_memory_tag_memory_pk FOREIGN KEY(memory_pk) REFERENCES memory (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_memory_tag_tag_pk FOREIGN KEY(tag_pk) REFERENCES tag (pk) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "memory_tag" VALUES(1,1);
INSERT INTO "memory_tag" VALUES(2,1);
INSERT INTO "memory_tag" VALUES(3,1);
INSERT INTO "memory_tag" VALUES(4,1);
INSERT INTO "memory_tag" VALUES(5,1);
INSERT INTO "memory_tag" VALUES(6,1);
INSERT INTO "memory_tag" VALUES(1,2);
INSERT INTO "memory_tag" VALUES(3,2);
INSERT INTO "memory_tag" VALUES(5,2);
INSERT INTO "memory_tag" VALUES(2,3);
INSERT INTO "memory_tag" VALUES(4,3);
INSERT INTO "memory_tag" VALUES(6,3);
INSERT INTO "memory_tag" VALUES(7,4);
CREATE TABLE memory_vector (
	memory_pk INTEGER NOT NULL, 
	space_pk INTEGER NOT NULL, 
	vector BLOB NOT NULL, 
	checksum INTEGER, 
	CONSTRAINT pk_memory_vector PRIMARY KEY (memory_pk, space_pk), 
	CONSTRAINT ck_memory_vector_vector CHECK (typeof(vector) = 'blob' AND length(vector) % 4 = 0), 
	CONSTRAINT fk_memory_vector_memory_pk FOREIGN KEY(memory_pk) REFERENCES memory (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_memory_vector_space_pk FOREIGN KEY(space_pk) REFERENCES vector_space (pk)
);
INSERT INTO "memory_vector" VALUES(1,1,X'0000803F00000000000000806F12833A',1415753294);
INSERT INTO "memory_vector" VALUES(2,1,X'0000803FABAAAA3ECDCCCCBD6F12833A',3285768237);
INSERT INTO "memory_vector" VALUES(3,1,X'0000803FABAA2A3FCDCC4CBE6F12833A',1807133543);
INSERT INTO "memory_vector" VALUES(4,1,X'0000803F0000803F9A9999BE6F12833A',2743562998);
INSERT INTO "memory_vector" VALUES(5,1,X'0000803FABAAAA3FCDCCCCBE6F12833A',2466494142);
INSERT INTO "memory_vector" VALUES(7,1,X'00000000000000000000004000000000',3024622364);
CREATE TABLE memstore_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT memstore_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "memstore_version" VALUES('0003');
CREATE TABLE namespace (
	pk INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	CONSTRAINT pk_namespace PRIMARY KEY (pk), 
	CONSTRAINT uq_namespace_path UNIQUE (path)
);
INSERT INTO "namespace" VALUES(1,'');
INSERT INTO "namespace" VALUES(2,'users/a~1d~0a/');
CREATE TABLE store_meta (
	pk INTEGER NOT NULL, 
	store_uuid TEXT NOT NULL, 
	epoch TEXT NOT NULL, 
	format INTEGER NOT NULL, 
	log_floor INTEGER DEFAULT 0 NOT NULL, 
	write_token BLOB, index_options TEXT, 
	CONSTRAINT pk_store_meta PRIMARY KEY (pk), 
	CONSTRAINT ck_store_meta_one_row CHECK (pk = 1)
);
INSERT INTO "store_meta" VALUES(1,'92710c0c-2faa-458c-87eb-e1e47b69429b','27e374428e33410aa2b82c12e5dd31ea',1,0,X'6D220D5B64263FC48ED88E49381531DE',NULL);
CREATE TABLE tag (
	pk INTEGER NOT NULL, 
	namespace_pk INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	CONSTRAINT pk_tag PRIMARY KEY (pk), 
	CONSTRAINT fk_tag_namespace_pk FOREIGN KEY(namespace_pk) REFERENCES namespace (pk), 
	CONSTRAINT uq_tag_namespace_pk_name UNIQUE (namespace_pk, name)
);
INSERT INTO "tag" VALUES(1,1,'all');
INSERT INTO "tag" VALUES(2,1,'even');
INSERT INTO "tag" VALUES(3,1,'odd');
INSERT INTO "tag" VALUES(4,2,'all');
CREATE TABLE vector_space (
	pk INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	name TEXT DEFAULT '' NOT NULL, 
	dimension INTEGER NOT NULL, 
	metric TEXT NOT NULL, 
	embedder TEXT, 
	CONSTRAINT pk_vector_space PRIMARY KEY (pk), 
	CONSTRAINT ck_vector_space_kind CHECK (kind IN ('memory', 'assembly')), 
	CONSTRAINT ck_vector_space_dimension CHECK (dimension > 0), 
	CONSTRAINT uq_vector_space_kind_name UNIQUE (kind, name)
);
INSERT INTO "vector_space" VALUES(1,'memory','',4,'cosine',NULL);
INSERT INTO "vector_space" VALUES(2,'assembly','',4,'cosine',NULL);
CREATE INDEX ix_assembly_namespace_pk_created_at ON assembly (namespace_pk, created_at);
CREATE INDEX ix_memory_expires_at ON memory (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX ix_memory_namespace_pk_created_at ON memory (namespace_pk, created_at);
CREATE INDEX ix_assembly_member_memory_pk_assembly_pk ON assembly_member (memory_pk, assembly_pk);
CREATE INDEX ix_assembly_tag_tag_pk_assembly_pk ON assembly_tag (tag_pk, assembly_pk);
CREATE INDEX ix_memory_tag_tag_pk_memory_pk ON memory_tag (tag_pk, memory_pk);
CREATE TRIGGER tr_memory_vector_insert AFTER INSERT ON memory_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = NEW.memory_pk); END;
CREATE TRIGGER tr_memory_vector_delete AFTER DELETE ON memory_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = OLD.memory_pk); END;
CREATE TRIGGER tr_memory_vector_checksum AFTER UPDATE OF vector ON memory_vector WHEN NEW.vector IS NOT OLD.vector AND NEW.checksum IS OLD.checksum BEGIN UPDATE memory_vector SET checksum = NULL WHERE memory_pk = NEW.memory_pk AND space_pk = NEW.space_pk; END;
CREATE TRIGGER tr_memory_delete AFTER DELETE ON memory BEGIN INSERT INTO change_log (space_pk, pk) SELECT space_pk, memory_pk FROM memory_vector WHERE memory_pk = OLD.pk; END;
CREATE TRIGGER tr_assembly_vector_insert AFTER INSERT ON assembly_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.assembly_pk); END;
CREATE TRIGGER tr_assembly_vector_delete AFTER DELETE ON assembly_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.assembly_pk); END;
CREATE TRIGGER tr_assembly_vector_checksum AFTER UPDATE OF vector ON assembly_vector WHEN NEW.vector IS NOT OLD.vector AND NEW.checksum IS OLD.checksum BEGIN UPDATE assembly_vector SET checksum = NULL WHERE assembly_pk = NEW.assembly_pk AND space_pk = NEW.space_pk; END;
CREATE TRIGGER tr_assembly_delete AFTER DELETE ON assembly BEGIN INSERT INTO change_log (space_pk, pk) SELECT space_pk, assembly_pk FROM assembly_vector WHERE assembly_pk = OLD.pk; END;
CREATE TRIGGER tr_memory_scope AFTER UPDATE OF namespace_pk, expires_at ON memory BEGIN INSERT INTO change_log (space_pk, pk) SELECT space_pk, memory_pk FROM memory_vector WHERE memory_pk = NEW.pk; END;
CREATE TRIGGER tr_assembly_scope AFTER UPDATE OF namespace_pk ON assembly BEGIN INSERT INTO change_log (space_pk, pk) SELECT space_pk, assembly_pk FROM assembly_vector WHERE assembly_pk = NEW.pk; END;
CREATE TRIGGER tr_assembly_insert AFTER INSERT ON assembly BEGIN INSERT INTO change_log (space_pk, pk) SELECT pk, NEW.pk FROM vector_space WHERE kind = 'assembly'; END;
CREATE TRIGGER tr_assembly_revision AFTER UPDATE OF revision ON assembly BEGIN INSERT INTO change_log (space_pk, pk) SELECT pk, NEW.pk FROM vector_space WHERE kind = 'assembly'; END;
CREATE TRIGGER tr_assembly_member_insert AFTER INSERT ON assembly_member BEGIN UPDATE assembly SET revision = revision + 1 WHERE pk = NEW.assembly_pk; END;
CREATE TRIGGER tr_assembly_member_delete AFTER DELETE ON assembly_member BEGIN UPDATE assembly SET revision = revision + 1 WHERE pk = OLD.assembly_pk; END;
CREATE TRIGGER tr_assembly_member_update AFTER UPDATE ON assembly_member BEGIN UPDATE assembly SET revision = revision + 1 WHERE pk = OLD.assembly_pk; UPDATE assembly SET revision = revision + 1 WHERE pk = NEW.assembly_pk; END;
CREATE INDEX ix_assembly_namespace_pk_updated_at ON assembly (namespace_pk, updated_at);
CREATE INDEX ix_memory_namespace_pk_updated_at ON memory (namespace_pk, updated_at);
CREATE INDEX ix_memory_namespace_pk_importance ON memory (namespace_pk, importance);
CREATE TRIGGER tr_memory_vector_changed AFTER UPDATE OF vector ON memory_vector WHEN NEW.memory_pk IS OLD.memory_pk AND NEW.space_pk IS OLD.space_pk BEGIN INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.memory_pk); END;
CREATE TRIGGER tr_memory_vector_moved AFTER UPDATE OF memory_pk, space_pk ON memory_vector WHEN NOT (NEW.memory_pk IS OLD.memory_pk AND NEW.space_pk IS OLD.space_pk) BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.memory_pk); INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = OLD.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = NEW.memory_pk); END;
CREATE TRIGGER tr_assembly_vector_changed AFTER UPDATE OF vector ON assembly_vector WHEN NEW.assembly_pk IS OLD.assembly_pk AND NEW.space_pk IS OLD.space_pk BEGIN INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.assembly_pk); END;
CREATE TRIGGER tr_assembly_vector_moved AFTER UPDATE OF assembly_pk, space_pk ON assembly_vector WHEN NOT (NEW.assembly_pk IS OLD.assembly_pk AND NEW.space_pk IS OLD.space_pk) BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.assembly_pk); INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.assembly_pk); END;
CREATE TRIGGER tr_memory_vector_owned AFTER UPDATE OF vector ON memory_vector WHEN EXISTS (SELECT 1 FROM assembly_member WHERE memory_pk = NEW.memory_pk) BEGIN UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = NEW.memory_pk); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('change_log',15);
INSERT INTO "sqlite_sequence" VALUES('memory',8);
INSERT INTO "sqlite_sequence" VALUES('assembly',2);
COMMIT;
