"""The catalog columns a person may see, of PostgreSQL 14 to 18; a column not listed stays hidden.

A later release that adds a column with sample values or statistics therefore shows nothing new.
Left out on purpose: transaction horizons, file numbers, ``attmissingval`` (a value).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from chartgate.sql.views import TableName

COLUMNS: Final[Mapping[TableName, frozenset[str]]] = MappingProxyType(
    {
        TableName(schema, name): frozenset(columns.split())
        for (schema, name), columns in {
            ("pg_catalog", "pg_am"): "oid amname amhandler amtype",
            ("pg_catalog", "pg_attrdef"): "oid adrelid adnum adbin",
            ("pg_catalog", "pg_attribute"): """
                attrelid attname atttypid attstattarget attlen attnum attndims atttypmod attbyval
                attalign attstorage attcompression attnotnull atthasdef atthasmissing attidentity
                attgenerated attisdropped attislocal attinhcount attcollation attacl attoptions
                attfdwoptions""",
            (
                "pg_catalog",
                "pg_auth_members",
            ): "roleid member grantor admin_option oid inherit_option set_option",
            ("pg_catalog", "pg_class"): """
                oid relname relnamespace reltype reloftype relowner relam reltablespace relpages
                reltuples relallvisible reltoastrelid relhasindex relisshared relpersistence relkind
                relnatts relchecks relhasrules relhastriggers relhassubclass relrowsecurity
                relforcerowsecurity relispopulated relreplident relispartition relacl reloptions
                relpartbound relallfrozen""",
            ("pg_catalog", "pg_collation"): """
                oid collname collnamespace collowner collprovider collisdeterministic collencoding
                collcollate collctype colliculocale collversion colllocale collicurules""",
            ("pg_catalog", "pg_constraint"): """
                oid conname connamespace contype condeferrable condeferred convalidated conrelid
                contypid conindid conparentid confrelid confupdtype confdeltype confmatchtype conislocal
                coninhcount connoinherit conkey confkey conpfeqop conppeqop conffeqop confdelsetcols
                conexclop conbin conenforced conperiod""",
            ("pg_catalog", "pg_database"): """
                oid datname datdba encoding datlocprovider datistemplate datallowconn datconnlimit
                dattablespace datcollate datctype daticulocale datcollversion datacl datlocale
                daticurules""",
            ("pg_catalog", "pg_description"): "objoid classoid objsubid description",
            ("pg_catalog", "pg_enum"): "oid enumtypid enumsortorder enumlabel",
            ("pg_catalog", "pg_index"): """
                indexrelid indrelid indnatts indnkeyatts indisunique indnullsnotdistinct indisprimary
                indisexclusion indimmediate indisclustered indisvalid indcheckxmin indisready indislive
                indisreplident indkey indcollation indclass indoption indexprs indpred""",
            ("pg_catalog", "pg_inherits"): "inhrelid inhparent inhseqno inhdetachpending",
            ("pg_catalog", "pg_namespace"): "oid nspname nspowner nspacl",
            (
                "pg_catalog",
                "pg_opclass",
            ): "oid opcmethod opcname opcnamespace opcowner opcfamily opcintype opcdefault opckeytype",
            (
                "pg_catalog",
                "pg_policy",
            ): "oid polname polrelid polcmd polpermissive polroles polqual polwithcheck",
            ("pg_catalog", "pg_proc"): """
                oid proname pronamespace proowner prolang procost prorows provariadic prosupport prokind
                prosecdef proleakproof proisstrict proretset provolatile proparallel pronargs
                pronargdefaults prorettype proargtypes proallargtypes proargmodes proargnames
                proargdefaults protrftypes prosrc probin prosqlbody proconfig proacl""",
            ("pg_catalog", "pg_publication"): """
                oid pubname pubowner puballtables pubinsert pubupdate pubdelete pubtruncate pubviaroot
                pubgencols""",
            ("pg_catalog", "pg_publication_namespace"): "oid pnpubid pnnspid",
            ("pg_catalog", "pg_publication_rel"): "oid prpubid prrelid prqual prattrs",
            (
                "pg_catalog",
                "pg_range",
            ): "rngtypid rngsubtype rngmultitypid rngcollation rngsubopc rngcanonical rngsubdiff",
            ("pg_catalog", "pg_roles"): """
                rolname rolsuper rolinherit rolcreaterole rolcreatedb rolcanlogin rolreplication
                rolconnlimit rolpassword rolvaliduntil rolbypassrls rolconfig oid""",
            (
                "pg_catalog",
                "pg_sequence",
            ): "seqrelid seqtypid seqstart seqincrement seqmax seqmin seqcache seqcycle",
            ("pg_catalog", "pg_settings"): """
                name setting unit category short_desc extra_desc context vartype source min_val max_val
                enumvals boot_val reset_val""",
            (
                "pg_catalog",
                "pg_statistic_ext",
            ): "oid stxrelid stxname stxnamespace stxowner stxstattarget stxkeys stxkind stxexprs",
            ("pg_catalog", "pg_type"): """
                oid typname typnamespace typowner typlen typbyval typtype typcategory typispreferred
                typisdefined typdelim typrelid typsubscript typelem typarray typinput typoutput
                typreceive typsend typmodin typmodout typanalyze typalign typstorage typnotnull
                typbasetype typtypmod typndims typcollation typdefaultbin typdefault typacl""",
            ("pg_catalog", "pg_tablespace"): "oid spcname spcowner spcoptions",
            (
                "pg_catalog",
                "pg_tables",
            ): "schemaname tablename tableowner tablespace hasindexes hasrules hastriggers rowsecurity",
            ("information_schema", "schemata"): """
                catalog_name schema_name schema_owner default_character_set_catalog
                default_character_set_schema default_character_set_name sql_path""",
            ("information_schema", "tables"): """
                table_catalog table_schema table_name table_type self_referencing_column_name
                reference_generation user_defined_type_catalog user_defined_type_schema
                user_defined_type_name is_insertable_into is_typed commit_action""",
            ("information_schema", "columns"): """
                table_catalog table_schema table_name column_name ordinal_position column_default
                is_nullable data_type character_maximum_length character_octet_length numeric_precision
                numeric_precision_radix numeric_scale datetime_precision interval_type
                interval_precision character_set_catalog character_set_schema character_set_name
                collation_catalog collation_schema collation_name domain_catalog domain_schema
                domain_name udt_catalog udt_schema udt_name scope_catalog scope_schema scope_name
                maximum_cardinality dtd_identifier is_self_referencing is_identity identity_generation
                identity_start identity_increment identity_maximum identity_minimum identity_cycle
                is_generated generation_expression is_updatable""",
            ("information_schema", "table_constraints"): """
                constraint_catalog constraint_schema constraint_name table_catalog table_schema
                table_name constraint_type is_deferrable initially_deferred enforced nulls_distinct""",
            ("information_schema", "key_column_usage"): """
                constraint_catalog constraint_schema constraint_name table_catalog table_schema
                table_name column_name ordinal_position position_in_unique_constraint""",
            ("information_schema", "referential_constraints"): """
                constraint_catalog constraint_schema constraint_name unique_constraint_catalog
                unique_constraint_schema unique_constraint_name match_option update_rule delete_rule""",
        }.items()
    }
)
