package python

import (
	"regexp"
	"sync"
)

// complaint is a line of an installer that has one known mend.
type complaint struct {
	pattern *regexp.Regexp
	mend    string
	index   bool // it is about an index, which is to be named
}

// noHeader is the complaint of a compiler about a header that is not there: gcc's
// and clang's words, and those of setup.py files that look themselves.
func noHeader(names string) string {
	return `(?:fatal error: |: )['"<]?(?:` + names + `)['">]?(?:: No such file| file not found)`
}

// complaints are the ones that people meet first; the packages are Debian's.
var complaints = sync.OnceValue(func() []complaint {
	return []complaint{
		{regexp.MustCompile(noHeader(`Python\.h`)), "the headers of Python are missing: apt install PYTHON-DEV", false},
		{regexp.MustCompile(`ensurepip is not available|No module named '?(venv|ensurepip)`), "Python's venv is missing: apt install PYTHON-VENV", false},
		{regexp.MustCompile(`pg_config executable not found|pg_config is required|pg_config'?: (command )?not found|` + noHeader(`libpq-fe\.h|libpq/libpq-fs\.h`)), "the client library of PostgreSQL is missing: apt install libpq-dev, or require psycopg2-binary", false},
		{regexp.MustCompile(`(mysql_config|mariadb_config)'?: (command )?not found|mariadb_config not found|mysqlclient.*pkg-config|Can not find valid pkg-config name|` + noHeader(`mysql\.h|mysql/mysql\.h`)), "the client library of MySQL is missing: apt install default-libmysqlclient-dev pkg-config", false},
		{regexp.MustCompile(`(command|unable to execute) '[^']*(gcc|cc|g\+\+|c\+\+)'[: ].*(No such file|failed: No such)|(gcc|cc|g\+\+|c\+\+|make): (command )?not found|Unknown compiler|No acceptable C compiler|[Cc]ompiler (?:cc|gcc|[\w-]+-gcc) (?:not found|cannot be found)|no acceptable C compiler found`), "a C compiler is missing: apt install build-essential PYTHON-DEV", false},
		{regexp.MustCompile(noHeader(`ffi\.h`)), "the headers of libffi are missing: apt install libffi-dev", false},
		{regexp.MustCompile(noHeader(`openssl/\w+\.h`)), "the headers of OpenSSL are missing: apt install libssl-dev", false},
		{regexp.MustCompile(noHeader(`libxml2?/\w+\.h|libxslt/\w+\.h`) + `|libxml2 and libxslt development packages`), "the headers of libxml2 are missing: apt install libxml2-dev libxslt1-dev", false},
		{regexp.MustCompile(`Unable to invoke pkg-config|xmlsec1 is not installed|Package xmlsec1 was not found|` + noHeader(`xmlsec/\w+\.h`)), "the headers of xmlsec are missing: apt install libxmlsec1-dev pkg-config", false},
		{regexp.MustCompile(noHeader(`lber\.h|ldap\.h`)), "the headers of OpenLDAP are missing: apt install libldap2-dev libsasl2-dev", false},
		{regexp.MustCompile(`(library files|headers or library files) could not be found for (jpeg|zlib)|` + noHeader(`jpeglib\.h|zlib\.h`)), "the headers of image libraries are missing: apt install libjpeg-dev zlib1g-dev", false},
		{regexp.MustCompile(noHeader(`ft2build\.h|freetype2?/\w+\.h`)), "the headers of FreeType are missing: apt install libfreetype-dev", false},
		{regexp.MustCompile(noHeader(`yaml\.h`)), "the headers of libyaml are missing: apt install libyaml-dev", false},
		{regexp.MustCompile(noHeader(`curl/curl\.h`) + `|curl-config'?: (command )?not found|Could not run curl-config`), "the headers of curl are missing: apt install libcurl4-openssl-dev libssl-dev", false},
		{regexp.MustCompile(noHeader(`sqlite3\.h`)), "the headers of SQLite are missing: apt install libsqlite3-dev", false},
		{regexp.MustCompile(noHeader(`sql\.h|sqlext\.h`)), "the headers of unixODBC are missing: apt install unixodbc-dev", false},
		{regexp.MustCompile(noHeader(`gmp\.h`)), "the headers of GMP are missing: apt install libgmp-dev", false},
		{regexp.MustCompile(noHeader(`magic\.h`) + `|failed to find libmagic`), "libmagic is missing: apt install libmagic-dev", false},
		{regexp.MustCompile(noHeader(`cairo\.h|cairo/cairo\.h`) + `|Dependency "cairo" not found`), "the headers of cairo are missing: apt install libcairo2-dev pkg-config", false},
		{regexp.MustCompile(noHeader(`graphviz/\w+\.h`)), "the headers of Graphviz are missing: apt install libgraphviz-dev", false},
		{regexp.MustCompile(`gdal-config'?: (command )?not found|gdal_config_error|A GDAL API version must be specified`), "the headers of GDAL are missing: apt install libgdal-dev", false},
		{regexp.MustCompile(`can't find Rust compiler|(?i:cargo|rustc)\b.*(not found|is not installed|not installed or not on PATH)|Rust toolchain`), "a Rust compiler is missing: apt install cargo", false},
		{regexp.MustCompile(`(?i)pkg-config'?:? .*(not found|No such file)|pkg-config: not found`), "pkg-config is missing: apt install pkg-config", false},
		{regexp.MustCompile(`(?i)cmake must be installed|cmake.*(not found|No such file)`), "CMake is missing: apt install cmake", false},
		{regexp.MustCompile(`(?i)(git executable not found|cannot find command 'git'|git: not found)`), "git is missing: apt install git", false},
		{regexp.MustCompile(`(?i)no space left on device|os error 28`), "the disk is full: scotch df shows what takes the room, scotch prune frees what nothing needs", false},
		{regexp.MustCompile(`(?i)invalid peer certificate|UnknownIssuer|CERTIFICATE_VERIFY_FAILED`), "the index's certificate is signed by nobody this server knows: put the authority's certificate into /usr/local/share/ca-certificates and run update-ca-certificates", true},
		{regexp.MustCompile(`(?i)hash(es)? (mismatch|do not match)|DO NOT MATCH THE HASHES`), "what the index gave is not what the hashes say: never go on; look who changed the package", false},
		{regexp.MustCompile(`(?i)40[13] (client error|unauthorized|forbidden)|status code 40[13]|HTTP status client error \(40[13]|lack of valid authentication credentials`), "the index wants other credentials: put the address with them, or their variables, into [build_env]", true},
		{regexp.MustCompile(`(?i)connection refused|failed to establish a new connection|temporary failure in name resolution|name or service not known|dns error|failed to lookup address|network is unreachable|no route to host`), "the index can't be reached from this server: look whether its address is right and it is up", true},
		{regexp.MustCompile(`(?i)read timed out|operation timed out|request timed out|connection timed out|connect timeout`), "the index is too slow or down: try again later, or name another one by PIP_INDEX_URL or UV_INDEX_URL in [build_env]", true},
		{regexp.MustCompile(`(?i)HTTP status server error|50[0-4] (server error|internal server error|bad gateway|service unavailable)|too many 50\d error responses`), "the index has trouble of its own: try again later", true},
		{regexp.MustCompile(`(?i)unsupported .?content-type|because the GET request got Content-Type|received some unexpected (HTML|JSON)|couldn't parse .*(html|json|metadata|index)|failed to parse .*(html|json)|is not a valid (zip|wheel)|wheel .* is invalid|not a zip file|failed to (read|extract|unzip).*(zip|archive|wheel)|invalid zip|could not find EOCD`), "what the index gave is no package or no list of them: look whether the address is that of a simple index, and nothing stands before it that wants a login", true},
		// pip says no more of an index that refuses, is silent or is broken.
		{regexp.MustCompile(`from versions: none\)`), "the index has no such package, or did not answer as it should: look at the name, and at the index's address and credentials", true},
	}
})
