"""Values that everybody knows, so that none of them is a secret wherever it stands in a text."""

from __future__ import annotations

# Only words that nobody would take for a key, each as a whole: default passwords of services and
# tutorials, placeholders, and words of the field. All have eight characters or more, for shorter
# values are looked for in no text at all.
WELL_KNOWN = frozenset(
    """
    00000000 11111111 12341234 12345678 123456789 1234567890 0123456789 87654321 abcd1234 asdfghjkl
    password password! password1 password12 password123 password1234 password123! passw0rd p@ssw0rd p@ssword
    mypassword my_password my-password my-secret-pw mysecretpassword my-secret-password my_secret_password
    yourpassword your_password your-password your-super-secret-password yoursecret your-secret your_secret
    your-secret-key your_secret_key your-api-key your_api_key your-api-key-here your_api_key_here
    your-openai-api-key your-token your_token your-token-here
    my_secret my-secret my-secret-key my_secret_key mysecretkey secret123 secretkey secret_key secret-key
    secretpassword secret-password supersecret super-secret super_secret supersecretkey super-secret-key
    supersecretpassword topsecret top-secret top_secret notasecret not-a-secret not_a_secret notsecret not-secret
    not-a-real-key not_a_real_key not-needed not_needed notneeded not-used not_used no-key-required
    no-key-needed nopassword no-password no_password insecure unsecure unsafe-password
    changeit changeme changeme! changeme1 changeme123 change-me change_me changethis change-this change_this
    replaceme replace-me replace_me placeholder fill-me-in
    defaultpassword default-password default_password defaultsecret temporary temppass temppassword
    admin123 admin1234 adminadmin adminpass adminpassword admin-password admin_password administrator
    rootroot rootpass rootpassword root-password root_password superuser sysadmin
    username userpass userpassword user_password guestguest guest123 anonymous
    testtest test1234 testpass testuser test-key test_key testpassword test-password test_password
    testing123 testtoken test-token test_token testsecret test-secret test_secret test-api-key test_api_key
    dummy-key dummy_key dummykey dummy-api-key dummy_api_key dummy-token dummy_token dummypassword
    fake-key fake_key fake-api-key fake_api_key fake-token fake_token fakepassword
    examples example-key example_key example-password example_password demopass demopassword
    devpassword dev-password dev_password dev-secret dev_secret devsecret localpassword local-key local_key
    letmein1 letmein123 welcome1 welcome123 qwerty12 qwerty123 qwertyui qwertyuiop 1q2w3e4r 1qaz2wsx zaq12wsx
    iloveyou sunshine princess football baseball trustno1 superman starwars whatever computer internet
    postgres postgresql postgrespassword postgres_password timescale timescaledb cockroach
    cockroachdb mysqlpass mysqlpassword mysql_password mongopass mongopassword
    redispass redispassword redis_password rabbitmq minioadmin
    elasticsearch opensearch clickhouse cassandra couchbase keycloak metabase superset wordpress mattermost
    kubernetes langfuse langgraph langchain langsmith llamaindex fluxloop lm-studio lmstudio
    anthropic supabase pgvector weaviate chromadb vertexai
    database databases defaultdb customer customers employee employees operator security internal external
    services frontend workflow workflows pipeline pipelines platform enterprise marketing
    development developer developers production integration localhost 127.0.0.1 localdev localhost:8000
    assistant question questions response responses messages metadata document documents function functions
    generate generated generation completion completions embedding embeddings template templates research
    training evaluation experiment experiments benchmark benchmarks iteration observation
    disabled undefined optional required unlimited unlocked anything something somebody continue
    """.split()  # noqa: SIM905
)
