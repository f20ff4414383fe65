-- Which certificate a client is shown, by the host name that it asks for.

local ssl = require "ngx.ssl"

local M = {}

local pairs_of = {} -- host name -> chain and key, parsed

local function parsed(path)
    local file = assert(io.open(path .. ".crt", "rb"))
    local chain = assert(ssl.parse_pem_cert(file:read("*a")))
    file:close()
    file = assert(io.open(path .. ".key", "rb"))
    local key = assert(ssl.parse_pem_priv_key(file:read("*a")))
    file:close()
    return { chain = chain, key = key }
end

-- In the master, which alone can read the keys. A bad pair must not take the others with it.
function M.init(directory, hosts)
    for host, name in pairs(hosts) do
        local ok, pair = pcall(parsed, directory .. name)
        if ok then
            pairs_of[host] = pair
        else
            ngx.log(ngx.CRIT, "certificate of ", host, ": ", pair)
        end
    end
end

-- A handshake begins. With nothing set here it goes on with the default pair.
function M.choose()
    local name = (ssl.server_name() or ""):lower()
    local pair = pairs_of[name] or pairs_of[name:gsub("^[^.]*", "*", 1)]
    if not pair then return end
    local ok, err = ssl.clear_certs()
    if ok then ok, err = ssl.set_cert(pair.chain) end
    if ok then ok, err = ssl.set_priv_key(pair.key) end
    if not ok then
        ngx.log(ngx.CRIT, "certificate of ", name, ": ", err)
        return ngx.exit(ngx.ERROR)
    end
end

return M
