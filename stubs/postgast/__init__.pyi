from postgast import pg_query_pb2 as pg_query_pb2

class PgQueryError(Exception):
    message: str
    cursorpos: int

def parse(query: str) -> pg_query_pb2.ParseResult: ...
def deparse(tree: pg_query_pb2.ParseResult) -> str: ...
