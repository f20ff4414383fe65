-- What orders say of a service's requests and answers: headers, origins, who it is.

local resp = require "ngx.resp"
local facts = require "services"
local quick = require "quick"

local M = {}

local METHODS = "GET, POST, OPTIONS, PUT, PATCH, DELETE"
local DAYS = 1728000 -- seconds that a browser may remember what it was told of an origin
local none = {}

-- No identity that a client claims reaches an app. Returns how many Authorization headers there
-- are, whether more than a head may come, and whether there may be a cookie.
function M.strip(service)
    local fact = facts.services[service]
    local claims, logins, more, cookie = quick.headers(fact and fact.identity or "x-identity")
    if claims then
        for _, name in ipairs(claims) do ngx.req.clear_header(name) end
    end
    return logins, more, cookie
end

-- What lets a browser in is between the two of us.
function M.keep_session()
    local cookie = ngx.var.http_cookie
    if not cookie or not cookie:find("starphleet_session=", 1, true) then return end
    local kept = {}
    for part in cookie:gmatch("[^;]+") do
        local name = part:match("^%s*([^=]*)")
        if name:gsub("^__%a+%-", "") ~= "starphleet_session" then kept[#kept + 1] = part end
    end
    ngx.req.set_header("Cookie", kept[1] and table.concat(kept, ";"):gsub("^%s+", "") or nil)
end

function M.add_headers(service)
    local fact = facts.services[service]
    if not fact or not fact.request then return end
    for name, value in pairs(fact.request) do
        ngx.req.set_header(name, value)
    end
end

local function admitted(fact, origin)
    if fact.origins[origin] then return origin end
    return fact.origins["*"] and "*" or nil
end

-- Browsers ask without credentials whether a page may ask at all: that is not the app's to answer.
function M.preflight(service)
    local fact = facts.services[service]
    if not fact or not fact.origins or ngx.req.get_method() ~= "OPTIONS" then return end
    local var = ngx.var
    if var.http_origin and var.http_access_control_request_method then ngx.exit(204) end
end

local function share(fact)
    local var, header = ngx.var, ngx.header
    header["Access-Control-Allow-Origin"] = nil
    header["Access-Control-Allow-Credentials"] = nil
    resp.add_header("Vary", "Origin")
    local origin = var.http_origin
    local allowed = origin and admitted(fact, origin)
    if not allowed then return end
    header["Access-Control-Allow-Origin"] = allowed
    if allowed ~= "*" then header["Access-Control-Allow-Credentials"] = "true" end
    if ngx.req.get_method() == "OPTIONS" and var.http_access_control_request_method then
        header["Access-Control-Allow-Methods"] = METHODS
        header["Access-Control-Max-Age"] = DAYS
        local asked = var.http_access_control_request_headers
        if asked and #asked <= 4000 and asked:find("^[%w!#$&'*+.^_`|~, -]+$") then
            header["Access-Control-Allow-Headers"] = asked
        end
    end
end

-- Header filter: what is set over the app's own. What we say ourselves stays as it is.
function M.answer(service)
    local fact = facts.services[service]
    if not fact then return end
    local ours = fact.response and ngx.ctx.ours
    for name, value in pairs(fact.response or none) do
        if not (ours and ngx.header[name]) then ngx.header[name] = value end
    end
    if fact.origins then share(fact) end
end

return M
